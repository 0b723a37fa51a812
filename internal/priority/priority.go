package priority

import (
	"context"
	"sync"
	"sync/atomic"
)

// Class is how urgent a fetch is; the lower, the more.
type Class uint32

// The classes.
const (
	// Demand: a reader waits. It is that of contexts which say nothing.
	Demand Class = iota
	// Prefetch: a reader is expected.
	Prefetch
	// Fill: nobody is; the link would be idle.
	Fill
)

type key struct{}

// ticket is the class of one piece of work.
type ticket struct {
	class atomic.Uint32

	mu      sync.Mutex    // guards changed
	changed chan struct{} // closed when the class has become more urgent
}

// With returns a context whose work is of a class of its own.
func With(ctx context.Context, c Class) context.Context {
	t := &ticket{changed: make(chan struct{})}
	t.class.Store(uint32(c))
	return context.WithValue(ctx, key{}, t)
}

func of(ctx context.Context) *ticket {
	t, _ := ctx.Value(key{}).(*ticket)
	return t
}

// Of returns the class of ctx as it is now.
func Of(ctx context.Context) Class {
	if t := of(ctx); t != nil {
		return Class(t.class.Load())
	}
	return Demand
}

// Raise makes the work of ctx at least as urgent as c, for all who have ctx or
// a context made of it.
func Raise(ctx context.Context, c Class) {
	t := of(ctx)
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if uint32(c) >= t.class.Load() {
		return
	}
	t.class.Store(uint32(c))
	close(t.changed)
	t.changed = make(chan struct{})
}

// Changed is closed when ctx has become more urgent than it is now; it is nil,
// and thus never closed, for what cannot become so. Ask for it before Of.
func Changed(ctx context.Context) <-chan struct{} {
	t := of(ctx)
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}
