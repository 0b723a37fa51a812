package layer

import (
	"context"
	"slices"
	"sync"

	"github.com/peelfs/peel/internal/priority"
)

// quota is so much of something that work shares. Work of lower classes than
// Demand gets no more than a part of it, so that demand never waits for that, and
// waits for all demand. Within a class it is first come, first served.
type quota struct {
	size int64
	low  int64 // what lower classes get at most

	mu      sync.Mutex // guards what follows
	used    int64
	usedLow int64
	waiting []*waiter // by class, then by time
}

// grant is a part of a quota that was acquired.
type grant struct {
	q   *quota
	n   int64
	low bool
}

// waiter is one call of acquire.
type waiter struct {
	want  int64
	class priority.Class
	got   grant
	ready chan struct{} // closed once got is set
}

// acquire waits for n of the quota, or for all that its class can have if that
// is less, and becomes as urgent as ctx does meanwhile.
func (q *quota) acquire(ctx context.Context, n int64) (grant, error) {
	if err := ctx.Err(); err != nil {
		return grant{}, err
	}
	w := &waiter{want: n, ready: make(chan struct{})}
	for {
		raised := priority.Changed(ctx)
		q.queue(w, priority.Of(ctx))
		select {
		case <-w.ready:
			return w.got, nil
		case <-raised:
		case <-ctx.Done():
			q.quit(w)
			return grant{}, context.Cause(ctx)
		}
	}
}

// queue puts w into its place among those who wait, unless it has been served.
func (q *quota) queue(w *waiter, class priority.Class) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.removeLocked(w)
	if w.got.q != nil {
		return
	}
	w.class = class
	at := slices.IndexFunc(q.waiting, func(o *waiter) bool { return o.class > class })
	if at < 0 {
		at = len(q.waiting)
	}
	q.waiting = slices.Insert(q.waiting, at, w)
	q.serveLocked()
}

// quit takes back what w wants or has got.
func (q *quota) quit(w *waiter) {
	q.mu.Lock()
	q.removeLocked(w)
	q.serveLocked() // those who waited behind it
	got := w.got
	q.mu.Unlock()
	if got.q != nil {
		got.release()
	}
}

func (q *quota) removeLocked(w *waiter) {
	q.waiting = slices.DeleteFunc(q.waiting, func(o *waiter) bool { return o == w })
}

// serveLocked serves those who wait, in order, until one of them has to wait on.
// Demand that waits keeps lower classes waiting, too.
func (q *quota) serveLocked() {
	for len(q.waiting) > 0 {
		w := q.waiting[0]
		g := q.offerLocked(w)
		if g.q == nil {
			return
		}
		q.waiting = q.waiting[1:]
		q.used += g.n
		if g.low {
			q.usedLow += g.n
		}
		w.got = g
		close(w.ready)
	}
}

// offerLocked returns what w can have now; nothing if it has to wait.
func (q *quota) offerLocked(w *waiter) grant {
	own := q.size - q.low // what is demand's alone
	switch {
	case w.class != priority.Demand:
		g := grant{q, min(w.want, q.low), true}
		if g.n <= min(q.size-q.used, q.low-q.usedLow) {
			return g
		}
	case w.want > own: // by itself among demand, whatever lower classes have
		if q.used == q.usedLow {
			return grant{q, min(w.want, q.size-q.used), false}
		}
	case w.want <= q.size-q.used:
		return grant{q, w.want, false}
	}
	return grant{}
}

// release gives back what was acquired.
func (g grant) release() {
	q := g.q
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= g.n
	if g.low {
		q.usedLow -= g.n
	}
	q.serveLocked()
}
