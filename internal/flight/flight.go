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
	reach    func(func(work context.Context)) // calls with the work's context
	owned    map[K]*flight[K, V]              // claimed and not yet delivered
	interest int                              // calls of Do that named one of its keys and have not returned
	timer    *time.Timer                      // runs while interest is 0
	dropped  bool                             // ended or given up: none of its keys are the group's
}

// New returns a group whose work goes on for grace after its last waiter left.
func New[K comparable, V any](grace time.Duration) *Group[K, V] {
	return &Group[K, V]{
		grace:   grace,
		flights: make(map[K]*flight[K, V]),
		pieces:  make(map[*piece[K, V]]struct{}),
	}
}

// Request is what Do and Begin are asked for.
type Request[K comparable, V any] struct {
	Want  []K        // keys to wait for
	Extra []K        // keys to work on as well, which nobody waits for now
	Work  Work[K, V] // started once, with those of the keys that nobody works on yet
	Got   func(K, V) // called in the caller's goroutine with each of Want, in that order
	// Joined, if any, is called with the context of each piece of work, begun
	// by others, that a wanted key is waited for from.
	Joined func(work context.Context)
}

// Do starts work on those keys that need it and waits for the wanted ones. It
// returns the first error that a wanted key was delivered with, in the order
// of Want, or ctx's error as soon as ctx is done. With nothing wanted it does
// not wait.
func (g *Group[K, V]) Do(ctx context.Context, r Request[K, V]) error {
	h, err := g.Begin(ctx, r)
	if err != nil {
		return err
	}
	defer h.Leave()
	return h.Wait(ctx)
}

// Hold is an interest in keys, which keeps work on them going until Leave. It
// belongs to one goroutine.
type Hold[K comparable, V any] struct {
	// Started: some of the keys had nobody at work on them, so that Begin
	// started the request's.
	Started bool

	g      *Group[K, V]
	got    func(K, V)
	waits  []*flight[K, V]
	all    []<-chan struct{} // of the wanted and the extra keys
	pieces []*piece[K, V]
}

// Begin is Do without the waiting. The caller calls Leave in the end.
func (g *Group[K, V]) Begin(ctx context.Context, r Request[K, V]) (*Hold[K, V], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, others, err := g.join(ctx, &r)
	if err != nil {
		return nil, err
	}
	if r.Joined != nil {
		for _, p := range others {
			p.reach(r.Joined)
		}
	}
	return h, nil
}

// Wait waits for the wanted keys as Do does. It is called once at most.
func (h *Hold[K, V]) Wait(ctx context.Context) error {
	for _, f := range h.waits {
		if err := wait(ctx, f.done); err != nil {
			return err
		}
		if f.err != nil {
			return f.err
		}
		h.got(f.key, f.value)
	}
	return nil
}

// Settle waits until all keys, the extra ones too, have been delivered, whatever
// with. It keeps none of their values.
func (h *Hold[K, V]) Settle(ctx context.Context) error {
	for _, done := range h.all {
		if err := wait(ctx, done); err != nil {
			return err
		}
	}
	return nil
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave ends the interest.
func (h *Hold[K, V]) Leave() { h.g.leave(h.pieces) }

// Has reports whether somebody works on a key.
func (g *Group[K, V]) Has(k K) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.flights[k] != nil
}

// join takes an interest in the keys of a request. It returns the pieces of work
// of others that its wanted keys come from, too.
func (g *Group[K, V]) join(ctx context.Context, r *Request[K, V]) (h *Hold[K, V], others []*piece[K, V], err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, ErrClosed
	}
	h = &Hold[K, V]{g: g, got: r.Got, waits: make([]*flight[K, V], 0, len(r.Want))}
	fresh := &piece[K, V]{owned: make(map[K]*flight[K, V])}
	var claimed []K
	take := func(k K) *flight[K, V] {
		f := g.flights[k]
		if f == nil {
			f = &flight[K, V]{key: k, piece: fresh, done: make(chan struct{})}
			g.flights[k], fresh.owned[k] = f, f
			claimed = append(claimed, k)
		}
		if !slices.Contains(h.pieces, f.piece) {
			h.pieces = append(h.pieces, f.piece)
		}
		h.all = append(h.all, f.done)
		return f
	}
	for _, k := range r.Want {
		h.waits = append(h.waits, take(k))
	}
	others = slices.DeleteFunc(slices.Clone(h.pieces), func(p *piece[K, V]) bool { return p == fresh })
	for _, k := range r.Extra {
		take(k)
	}
	if h.Started = len(claimed) > 0; h.Started {
		g.startLocked(ctx, fresh, r.Work, claimed)
	}
	for _, p := range h.pieces {
		p.interest++
		if p.timer != nil {
			p.timer.Stop()
			p.timer = nil
		}
	}
	return h, others, nil
}

// startLocked runs work in a goroutine that ends when the work returns.
func (g *Group[K, V]) startLocked(ctx context.Context, p *piece[K, V], work Work[K, V], claimed []K) {
	ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	p.reach = func(call func(context.Context)) { call(ctx) }
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
