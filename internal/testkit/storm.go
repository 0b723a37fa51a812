//go:build linux

package testkit

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Storm breaks answers at random, each in one way at most. The fields are
// the shares of the answers, 0 to 1, that meet each end.
type Storm struct {
	Seed        uint64
	Internal    float64 // 500
	Unavailable float64 // 503
	TooMany     float64 // 429 with Retry-After: 1
	Resets      float64 // the connection breaks within the body
	Truncated   float64 // the body ends early, though the header promised more
	Corrupted   float64 // one byte of the body is wrong
	Stalled     float64 // nothing arrives for StallTime, within the body
}

// StallTime is how long a stalled answer of a storm keeps silent.
const StallTime = 5 * time.Second

// Everything is a storm of all faults, each with the same share.
func Everything(seed uint64, share float64) Storm {
	return Storm{seed, share, share, share, share, share, share, share}
}

// A Storming is a storm under way.
type Storming struct {
	mu     sync.Mutex // guards what follows
	rng    *rand.Rand
	faults []stormFault
	struck map[string]int
}

type stormFault struct {
	name  string
	share float64
	do    func(n int64) func(http.Handler) http.Handler // n: where in the body
}

// Storm makes the weather before a registry: one in so many answers is broken.
func (p *Proxy) Storm(s Storm) *Storming {
	fixed := func(do func(http.Handler) http.Handler) func(int64) func(http.Handler) http.Handler {
		return func(int64) func(http.Handler) http.Handler { return do }
	}
	w := &Storming{rng: rand.New(rand.NewPCG(s.Seed, 1)), struck: map[string]int{}, faults: []stormFault{
		{"500", s.Internal, fixed(Answer(http.StatusInternalServerError, nil))},
		{"503", s.Unavailable, fixed(Answer(http.StatusServiceUnavailable, nil))},
		{"429", s.TooMany, fixed(Answer(http.StatusTooManyRequests, http.Header{"Retry-After": {"1"}}))},
		{"reset", s.Resets, Reset},
		{"truncated", s.Truncated, Cut},
		{"corrupted", s.Corrupted, Corrupt},
		{"stalled", s.Stalled, Stall},
	}}
	p.Inject(Fault{Do: w.strike})
	return w
}

// strike decides the fate of one answer.
func (w *Storming) strike(next http.Handler) http.Handler {
	w.mu.Lock()
	defer w.mu.Unlock()
	lot := w.rng.Float64()
	// Half of them break where documents are hit too. A body that ends before
	// passes unharmed.
	at := w.rng.Int64N([]int64{400, 50_000}[w.rng.IntN(2)])
	for _, f := range w.faults {
		if lot < f.share {
			w.struck[f.name]++
			return f.do(at)(next)
		}
		lot -= f.share
	}
	w.struck["unharmed"]++
	return next
}

// String tells how many answers met which end.
func (w *Storming) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(w.struck)) {
		out = append(out, fmt.Sprintf("%s %d", name, w.struck[name]))
	}
	return strings.Join(out, ", ")
}

// Struck is how many answers met the end of that name.
func (w *Storming) Struck(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.struck[name]
}

// Corrupt flips a bit of byte n of the body, or of its last one if it arrives
// in one piece that is shorter.
func Corrupt(n int64) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&corrupter{ResponseWriter: w, at: n}, r)
		})
	}
}

type corrupter struct {
	http.ResponseWriter
	at   int64
	done bool
}

func (c *corrupter) Write(b []byte) (int, error) {
	if c.done || len(b) == 0 {
		return c.ResponseWriter.Write(b)
	}
	c.done = true
	wrong := slices.Clone(b)
	wrong[min(c.at, int64(len(b)-1))] ^= 0x04
	return c.ResponseWriter.Write(wrong)
}

// Unwrap is for http.ResponseController.
func (c *corrupter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Stall keeps silent for StallTime after n bytes of the body, and goes on.
func Stall(n int64) func(http.Handler) http.Handler {
	return after(n, func(l *limited) {
		timer := time.NewTimer(StallTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.request.Context().Done():
		}
	})
}
