package flight

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"
)

// Errors that waiters get beside those of the work.
var (
	// ErrClosed: the group was closed before the key was delivered.
	ErrClosed = fmt.Errorf("flight: %w", os.ErrClosed)
	// ErrUndelivered: the work ended without delivering the key.
	ErrUndelivered = errors.New("flight: work ended without a result")

	errAbandoned = errors.New("flight: nobody waits any longer")
)

// Grace is how long work goes on after the last waiter left: long enough for
// an interrupted reader to come back.
const Grace = 2 * time.Second

// ToTheEnd is a grace period that never ends: work that was started is
// finished unless the group is closed.
const ToTheEnd time.Duration = math.MaxInt64

// Work produces the values of the keys it has claimed and delivers each once,
// from any of its goroutines. It returns when all of these have ended. The
// claimed slice is the work's own.
type Work[K comparable, V any] func(ctx context.Context, claimed []K, deliver func(K, V, error))

// Group keeps track of the keys that are being worked on.
type Group[K comparable, V any] struct {
	grace time.Duration
	wg    sync.WaitGroup // of work; added to with mu held, while not closed

	mu      sync.Mutex // guards what follows and all fields of flights
	flights map[K]*flight[K, V]
	pieces  map[*piece[K, V]]struct{}
	closed  bool
}

// flight is a key on its way.
type flight[K comparable, V any] struct {
	key   K
	piece *piece[K, V]
	done  chan struct{} // closed after value and err are set
	value V
	err   error
}

// piece is one run of a Work.
type piece[K comparable, V any] struct {
	cancel   context.CancelCauseFunc
	owned    map[K]*flight[K, V] // claimed and not yet delivered
	interest int                 // calls of Do that named one of its keys and have not returned
	timer    *time.Timer         // runs while interest is 0
	dropped  bool                // ended or given up: none of its keys are the group's
}

// New returns a group whose work goes on for grace after its last waiter left.
func New[K comparable, V any](grace time.Duration) *Group[K, V] {
	return &Group[K, V]{
		grace:   grace,
		flights: make(map[K]*flight[K, V]),
		pieces:  make(map[*piece[K, V]]struct{}),
	}
}

// Request is what Do is asked for.
type Request[K comparable, V any] struct {
	Want  []K        // keys to wait for
	Extra []K        // keys to work on as well, which nobody waits for now
	Work  Work[K, V] // started once, with those of the keys that nobody works on yet
	Got   func(K, V) // called in the caller's goroutine with each of Want, in that order
}

// Do starts work on those keys that need it and waits for the wanted ones. It
// returns the first error that a wanted key was delivered with, in the order
// of Want, or ctx's error as soon as ctx is done. With nothing wanted it does
// not wait.
func (g *Group[K, V]) Do(ctx context.Context, r Request[K, V]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	waits, pieces, err := g.join(ctx, &r)
	if err != nil {
		return err
	}
	defer g.leave(pieces)
	for _, f := range waits {
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if f.err != nil {
			return f.err
		}
		r.Got(f.key, f.value)
	}
	return nil
}

// join returns the flights of the wanted keys and the pieces of work that the
// caller is now interested in.
func (g *Group[K, V]) join(ctx context.Context, r *Request[K, V]) ([]*flight[K, V], []*piece[K, V], error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, ErrClosed
	}
	fresh := &piece[K, V]{owned: make(map[K]*flight[K, V])}
	var claimed []K
	var pieces []*piece[K, V]
	take := func(k K) *flight[K, V] {
		f := g.flights[k]
		if f == nil {
			f = &flight[K, V]{key: k, piece: fresh, done: make(chan struct{})}
			g.flights[k], fresh.owned[k] = f, f
			claimed = append(claimed, k)
		}
		if !slices.Contains(pieces, f.piece) {
			pieces = append(pieces, f.piece)
		}
		return f
	}
	waits := make([]*flight[K, V], 0, len(r.Want))
	for _, k := range r.Want {
		waits = append(waits, take(k))
	}
	for _, k := range r.Extra {
		take(k)
	}
	if len(claimed) > 0 {
		g.startLocked(ctx, fresh, r.Work, claimed)
	}
	for _, p := range pieces {
		p.interest++
		if p.timer != nil {
			p.timer.Stop()
			p.timer = nil
		}
	}
	return waits, pieces, nil
}

// startLocked runs work in a goroutine that ends when the work returns.
func (g *Group[K, V]) startLocked(ctx context.Context, p *piece[K, V], work Work[K, V], claimed []K) {
	ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	g.pieces[p] = struct{}{}
	g.wg.Go(func() {
		defer g.finish(ctx, p)
		work(ctx, claimed, func(k K, v V, err error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			f := p.owned[k]
			if f == nil {
				panic(fmt.Sprintf("flight: key %v was not claimed or is delivered twice", k))
			}
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			g.landLocked(f, v, err)
		})
	})
}

// landLocked hands a flight's outcome to its waiters.
func (g *Group[K, V]) landLocked(f *flight[K, V], v V, err error) {
	f.value, f.err = v, err
	delete(f.piece.owned, f.key)
	if g.flights[f.key] == f {
		delete(g.flights, f.key)
	}
	close(f.done)
}

// finish lands what the work has not delivered.
func (g *Group[K, V]) finish(ctx context.Context, p *piece[K, V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil {
		err = ErrUndelivered
	}
	for _, f := range p.owned {
		var zero V
		g.landLocked(f, zero, err)
	}
	g.dropLocked(p, nil)
}

// leave withdraws one interest from each of the pieces.
func (g *Group[K, V]) leave(pieces []*piece[K, V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range pieces {
		p.interest--
		if p.interest == 0 && !p.dropped && g.grace != ToTheEnd {
			g.giveUpLater(p)
		}
	}
}

func (g *Group[K, V]) giveUpLater(p *piece[K, V]) {
	var timer *time.Timer
	timer = time.AfterFunc(g.grace, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if p.timer == timer {
			g.dropLocked(p, errAbandoned)
		}
	})
	p.timer = timer
}

// dropLocked cancels a piece of work and takes its keys from the group.
func (g *Group[K, V]) dropLocked(p *piece[K, V], cause error) {
	if p.dropped {
		return
	}
	p.dropped = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.cancel(cause)
	delete(g.pieces, p)
	for k := range p.owned {
		delete(g.flights, k)
	}
}

// Close cancels all work, waits for it to end, and makes Do fail.
func (g *Group[K, V]) Close() {
	g.mu.Lock()
	g.closed = true
	for p := range g.pieces {
		p.cancel(ErrClosed)
	}
	g.mu.Unlock()
	g.wg.Wait()
}
