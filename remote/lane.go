package remote

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/peelfs/peel/internal/priority"
)

const (
	maxPrefetches = 12 // of class Prefetch under way per host; of class Fill, one
	// One in so many slots, and of the requests of a second, is left to Demand.
	keptFree = 4
	// lull is how long after a demand no further one is expected.
	lull = time.Second
	// What is on the line for other classes, before another request of theirs is
	// sent while demands are expected, is at most what comes in so many round
	// trips: enough that the line is not idle.
	tripsAhead = 2
)

// lane is who asks one host, and who waits to. limiter.mu guards it.
type lane struct {
	held    []*slot
	waiting []*slot       // as they came
	quiet   chan struct{} // closed when a request ended; nil if nobody waits for that
	timer   *time.Timer   // serves who waits for the host's rate; nil if nobody did
}

// slot is one request in a lane, until its body is closed.
type slot struct {
	limiter *limiter
	lane    *lane
	link    *link
	class   func() priority.Class
	changed func() <-chan struct{}

	left     atomic.Int64  // bytes expected, roughly
	demanded atomic.Bool   // once of class Demand, always
	sent     atomic.Bool   // waits for nobody on this machine any longer
	granted  bool          // guarded by limiter.mu
	ready    chan struct{} // closed when granted; nil if nobody waits
	exit     func()        // leaves the gate
}

// urgency is the class as it is now.
func (s *slot) urgency() priority.Class {
	if s.demanded.Load() {
		return priority.Demand
	}
	c := s.class()
	if c == priority.Demand {
		s.demanded.Store(true)
	}
	return c
}

// release is called when the body is closed.
func (s *slot) release() {
	s.exit()
	s.limiter.leave(s)
}

// firstLocked is the most urgent of those who wait, and of these who came
// first; nil if there is none.
func (w *lane) firstLocked() (*slot, priority.Class) {
	var first *slot
	best := priority.Fill + 1
	for _, s := range w.waiting {
		if c := s.urgency(); c < best {
			first, best = s, c
		}
		if best == priority.Demand {
			break
		}
	}
	return first, best
}

// mayLocked reports whether a request of a class may start, with none waiting
// that is more urgent.
func (w *lane) mayLocked(c priority.Class, slots int) bool {
	switch c {
	case priority.Demand:
		return len(w.held) < slots
	case priority.Prefetch:
		prefetches := 0
		for _, s := range w.held {
			if s.urgency() == priority.Prefetch {
				prefetches++
			}
		}
		return prefetches < maxPrefetches && len(w.held) < max(1, slots-(slots+keptFree-1)/keptFree)
	default:
		return len(w.held) == 0
	}
}

// crowdedLocked is how long a request has to wait, of a class other than Demand,
// because of those of such classes under way. Pausing does not help against what
// kernels and connections have already taken up: if a demand comes, its bytes
// share the line with all of that.
func (w *lane) crowdedLocked(l *link, c priority.Class) time.Duration {
	ahead := tripsAhead * int64(l.trips.median().Seconds()*float64(l.flow.rate()))
	if c == priority.Demand || ahead == 0 {
		return 0
	}
	left, wait := int64(0), lull-time.Since(l.demand)
	for _, s := range w.held {
		if s.urgency() == priority.Demand {
			wait = lull
			continue
		}
		left += max(0, s.left.Load())
	}
	if left <= ahead {
		return 0
	}
	return max(0, wait)
}

// wakeLocked tells those who pause that a request ended.
func (w *lane) wakeLocked() {
	if w.quiet != nil {
		close(w.quiet)
		w.quiet = nil
	}
}

// laterLocked calls f after d, and no longer when it was to before.
func (w *lane) laterLocked(d time.Duration, f func()) {
	w.stopLocked()
	w.timer = time.AfterFunc(d, f)
}

func (w *lane) stopLocked() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// take takes one request from a host's rate, or returns how long to wait before
// the next try. All but Demand leave a part of what may be sent at once.
func take(r *rate.Limiter, c priority.Class) time.Duration {
	need := 1.0
	if c != priority.Demand {
		need += float64(r.Burst()-1) / keptFree
	}
	now := time.Now()
	if missing := need - r.TokensAt(now); missing > 0 {
		return time.Duration(missing/float64(r.Limit())*float64(time.Second)) + time.Microsecond
	}
	if !r.AllowN(now, 1) { // somebody else was faster
		return time.Millisecond
	}
	return 0
}
