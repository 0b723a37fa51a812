package remote

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// limiter bounds the requests under way per host, of this client and, by way of
// the gate, of all on this machine. It remembers only hosts that have some,
// because redirects may name any number of them.
type limiter struct {
	perHost int64
	gate    *gate

	mu    sync.Mutex // guards hosts and their users
	hosts map[string]*lane
}

type lane struct {
	slots *semaphore.Weighted
	users int
}

func newLimiter(perHost int, g *gate) *limiter {
	return &limiter{perHost: int64(perHost), gate: g, hosts: map[string]*lane{}}
}

// acquire waits for a slot of host; the caller calls the returned function
// once, when its body is closed.
func (l *limiter) acquire(ctx context.Context, host string) (func(), error) {
	l.mu.Lock()
	w := l.hosts[host]
	if w == nil {
		w = &lane{slots: semaphore.NewWeighted(l.perHost)}
		l.hosts[host] = w
	}
	w.users++
	l.mu.Unlock()

	if err := w.slots.Acquire(ctx, 1); err != nil {
		l.leave(host, w)
		return nil, ended(ctx, nil)
	}
	release := func() {
		w.slots.Release(1)
		l.leave(host, w)
	}
	leave, err := l.gate.enter(ctx, host)
	if err != nil {
		release()
		return nil, err
	}
	return func() {
		leave()
		release()
	}, nil
}

func (l *limiter) leave(host string, w *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.users--
	if w.users == 0 {
		delete(l.hosts, host)
	}
}
