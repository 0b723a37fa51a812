package remote

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/peelfs/peel/internal/priority"
)

const (
	// A first byte is late after lateTimes the host's round trip, if that is
	// known from minTrips answers, but not before lateLeast.
	lateTimes = 3
	lateLeast = 50 * time.Millisecond
	minTrips  = 16
)

var (
	// errOvertaken: the answer to another request was there first.
	errOvertaken = errors.New("overtaken")
	// errNotNow: what need not be sent would have to wait.
	errNotNow = errors.New("not sent")
)

// raceKey is for the *race in the context of a request that may be overtaken.
type raceKey struct{}

func raceOf(ctx context.Context) *race {
	r, _ := ctx.Value(raceKey{}).(*race)
	return r
}

// payerKey is for the *link, in the context of a request that is sent because
// another is late, to whose host that other was sent.
type payerKey struct{}

func payer(ctx context.Context) *link {
	l, _ := ctx.Value(payerKey{}).(*link)
	return l
}

// asideKey marks the context of a request that must not share a connection.
type asideKey struct{}

// race is between the request for a range and another, which is sent if the
// first byte of the answer is late. Who sends the first begins and ends it; the
// second has a goroutine of its own, which lost waits for.
type race struct {
	again func(context.Context) (*part, error)

	timer *time.Timer // of the first request's goroutine

	mu    sync.Mutex // guards what follows
	over  bool       // there is an answer
	ended chan struct{}
	stop  context.CancelFunc // the second request; nil if it was not sent
	got   *part              // by the second request
}

// begin is called when there is a connection for the first request, for each of
// its hops, and again if that connection turns out to be dead; dog watches it.
// The second lasts no longer than ctx.
func (r *race) begin(ctx context.Context, l *link, dog *watchdog) {
	if r == nil || r.timer != nil || l.trips.count.Load() < minTrips || !l.allowed.enough() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.timer = time.AfterFunc(max(lateLeast, lateTimes*l.trips.median()), func() { r.run(ctx, l, dog) })
	}
}

// run sends the second request.
func (r *race) run(ctx context.Context, l *link, dog *watchdog) {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return
	}
	ctx = context.WithValue(ctx, raceKey{}, (*race)(nil)) // there is no third
	ctx, stop := context.WithCancel(context.WithValue(ctx, payerKey{}, l))
	r.stop, r.ended = stop, make(chan struct{})
	r.mu.Unlock()
	defer close(r.ended)

	got, err := r.again(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || r.over {
		if err == nil {
			got.body.Close() //nolint:errcheck // nothing of it is used
		}
		stop()
		return
	}
	got.body = &stopping{got.body, stop}
	r.over, r.got = true, got
	dog.cancel(errOvertaken)
}

// lost is called when the first request, or a hop of it, has been answered or
// has failed. It reports whether the second was answered before, and sees to it
// that none is under way any longer.
func (r *race) lost() bool {
	if r == nil || r.timer == nil {
		return false
	}
	sent := !r.timer.Stop()
	r.timer = nil
	if !sent {
		return false
	}
	r.mu.Lock()
	lost, stop := r.over, r.stop
	r.over = true
	r.mu.Unlock()
	if stop != nil {
		if !lost {
			stop()
		}
		<-r.ended
	}
	return lost
}

// stopping is a body whose request has a context of its own.
type stopping struct {
	io.ReadCloser
	stop context.CancelFunc
}

func (s *stopping) Close() error {
	err := s.ReadCloser.Close()
	s.stop()
	return err
}

// openRacing is openAt, for readers that wait. If the first byte is late, the
// next of hosts is asked as well, or e by another connection, and the answer
// that comes first is taken. Not while it is unknown where e has the blob: all
// who read it wait for that.
func (b *Blob) openRacing(ctx context.Context, e *endpoint, w window, p *pace, hosts []*endpoint) (*part, error) {
	if priority.Of(ctx) != priority.Demand || !e.direct.Load() && b.remembered(e) == nil {
		return b.openAt(ctx, e, w, p)
	}
	r := &race{
		again: func(ctx context.Context) (*part, error) {
			return b.openAt(ctx, w.second(e, hosts), w, newRangePace(b.client.o.Retry))
		},
	}
	got, err := b.openAt(context.WithValue(ctx, raceKey{}, r), e, w, p)
	if r.got == nil { // which nobody writes any longer
		return got, err
	}
	b.client.tally.hedgesWon.Add(1)
	r.got.dog.pace, r.got.progress = p, p.progress
	return r.got, nil
}

// second is who is asked when e is late: who comes after it, if that is as good.
func (w window) second(e *endpoint, hosts []*endpoint) *endpoint {
	now, after := time.Now(), false
	for _, h := range hosts {
		if after && w.rank(h, now) == 0 {
			return h
		}
		after = after || h == e
	}
	return e
}
