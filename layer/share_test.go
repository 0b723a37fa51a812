package layer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
)

// notary is what processes know of each other's claims.
type notary struct {
	mu      sync.Mutex // guards what follows
	owner   map[int]*process
	changed chan struct{} // closed with the next release
}

func newNotary() *notary {
	return &notary{owner: make(map[int]*process), changed: make(chan struct{})}
}

// process is a store that several processes share, as one of them has it.
type process struct {
	*shelf
	notary *notary
	err    error // of claims
}

func (p *process) try(first, n int) (func(), <-chan struct{}) {
	g := p.notary
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := first; i < first+n; i++ {
		if g.owner[i] != nil { // be it another reader of this process, as in package cache
			return nil, g.changed
		}
	}
	for i := first; i < first+n; i++ {
		g.owner[i] = p
	}
	return sync.OnceFunc(func() { p.release(first, n) }), nil
}

func (p *process) release(first, n int) {
	g := p.notary
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := first; i < first+n; i++ {
		delete(g.owner, i)
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

func (p *process) TryClaim(first, n int) (func(), bool, error) {
	if p.err != nil {
		return nil, false, p.err
	}
	release, _ := p.try(first, n)
	return release, release != nil, nil
}

func (p *process) Claim(ctx context.Context, first, n int) (func(), error) {
	for p.err == nil {
		release, changed := p.try(first, n)
		if release != nil {
			return release, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, p.err
}

// free checks that nobody has a claim left.
func (g *notary) free(t *testing.T) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.owner) > 0 {
		t.Errorf("%d spans still claimed", len(g.owner))
	}
}

// Several processes read and fill one layer, and each of its spans crosses the
// wire once.
func TestProcessesShareTheWork(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		for _, whole := range []bool{false, true} {
			name := form
			if whole {
				name += " without ranges"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, append(slices.Clone(mixed), 2<<20)...)
				synctest.Test(t, func(t *testing.T) { shareWork(t, b, whole) })
			})
		}
	}
}

func shareWork(t *testing.T, b *bottled, whole bool) {
	s, g := newShelf(b.x), newNotary()
	var wires []*wire
	var layers []*Layer
	var wg sync.WaitGroup
	for n := range uint64(4) {
		w := &wire{delay: 40 * time.Millisecond, pace: time.Millisecond, piece: 8 << 10, whole: whole}
		wires = append(wires, w)
		l := b.open(t, w, &process{shelf: s, notary: g}, Options{})
		layers = append(layers, l)
		wg.Go(func() { readRandomly(t, l, b.space, rand.New(rand.NewPCG(n, 1))) })
		if n < 2 {
			wg.Go(func() {
				if err := l.Fill(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	// A claim ends after its last span was handed over, and guesses have theirs.
	for _, l := range layers {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	g.free(t)
	if s.puts != len(b.x.Spans) {
		t.Errorf("%d spans stored of %d", s.puts, len(b.x.Spans))
	}
	var sent, passes int64
	for _, w := range wires {
		sent += w.bytes.Load()
		passes += w.requests.Load() - w.refused.Load()
	}
	// Gaps between the spans of a request may be what another process fetches.
	if most := int64(len(b.blob)) * 5 / 4; sent > most && b.x.Info.Digests == OfData && (!whole || b.x.Info.Format == FormatTar) {
		t.Errorf("%d bytes on the wires, the blob has %d", sent, len(b.blob))
	}
	if whole && passes > 2 {
		t.Errorf("%d passes", passes)
	}
}

// A claim that is given up without the spans, as by a process that was killed,
// lets others fetch them.
func TestClaimOfADeadProcess(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			synctest.Test(t, func(t *testing.T) {
				g := newNotary()
				dead := &process{notary: g}
				release, _ := dead.try(0, len(b.x.Spans))
				w := &wire{}
				l := b.open(t, w, &process{shelf: newShelf(b.x), notary: g}, Options{})
				var wg sync.WaitGroup
				wg.Go(func() {
					p := make([]byte, 1000)
					if _, err := l.ReadAt(t.Context(), p, 70_000); err != nil || !bytes.Equal(p, b.space[70_000:71_000]) {
						t.Errorf("wrong bytes or error %v", err)
					}
				})
				synctest.Wait()
				if w.requests.Load() != 0 {
					t.Errorf("%d requests for what another process fetches", w.requests.Load())
				}
				release()
				wg.Wait()
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				g.free(t)
			})
		})
	}
}

// Whoever waits for another process stops when told to.
func TestWaitForAnotherProcessEnds(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			synctest.Test(t, func(t *testing.T) {
				g := newNotary()
				(&process{notary: g}).try(0, len(b.x.Spans))
				l := b.open(t, &wire{}, &process{shelf: newShelf(b.x), notary: g}, Options{})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := l.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestClaimsThatFailAreDoneWithout(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			var said bytes.Buffer
			log := logrus.New()
			log.SetOutput(&said)
			s := &process{shelf: newShelf(b.x), err: errors.New("no locks available")}
			l := b.open(t, &wire{}, s, Options{Log: logrus.NewEntry(log)})
			readRandomly(t, l, b.space, rand.New(rand.NewPCG(1, 1)))
			if err := l.Fill(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if n := strings.Count(said.String(), "no locks available"); n != 1 {
				t.Errorf("said %d times: %s", n, said.String())
			}
		})
	}
}
