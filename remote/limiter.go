package remote

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/peelfs/peel/internal/priority"
)

// limiter bounds the requests under way, and the requests a second, per host,
// of this client; and, by way of the gate, those under way of all on this
// machine. It remembers only lanes that have some, because redirects may name
// any number of hosts.
type limiter struct {
	perHost int
	gate    *gate
	links   *links

	mu    sync.Mutex // guards hosts, the lanes, granted of slots and demand of links
	hosts map[string]*lane
}

func newLimiter(o Options, g *gate) *limiter {
	return &limiter{perHost: o.MaxPerHost, gate: g, links: newLinks(o.RequestRate), hosts: map[string]*lane{}}
}

// acquire waits for a slot of host, for as long as there is something more
// urgent than ctx, which may become so meanwhile. An answer of n bytes is
// expected, 0 if that is not known. The caller calls the slot's release once,
// when its body is closed.
func (l *limiter) acquire(ctx context.Context, host string, n int64) (*slot, error) {
	s := l.slot(ctx, host, n)
	for {
		changed := s.changed()
		if l.granted(s) {
			break
		}
		select {
		case <-s.ready:
		case <-changed:
		case <-ctx.Done():
			l.leave(s)
			return nil, ended(ctx, nil)
		}
	}
	return l.enter(ctx, s)
}

// try is acquire without waiting in the lane; nil if there is no slot.
func (l *limiter) try(ctx context.Context, host string, n int64) (*slot, error) {
	s := l.slot(ctx, host, n)
	if !l.granted(s) {
		l.leave(s)
		return nil, nil
	}
	return l.enter(ctx, s)
}

// enter is the last step: to wait for other processes.
func (l *limiter) enter(ctx context.Context, s *slot) (*slot, error) {
	leave, err := l.gate.enter(ctx, s.link.host, s.urgency)
	if err != nil {
		l.leave(s)
		return nil, err
	}
	s.exit = leave
	s.sent.Store(true)
	return s, nil
}

// slot is one that waits.
func (l *limiter) slot(ctx context.Context, host string, n int64) *slot {
	s := &slot{
		limiter: l,
		link:    l.links.of(host),
		class:   func() priority.Class { return priority.Of(ctx) },
		changed: func() <-chan struct{} { return priority.Changed(ctx) },
	}
	s.left.Store(n)
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.hosts[host]
	if w == nil {
		w = &lane{}
		l.hosts[host] = w
	}
	s.lane = w
	w.waiting = append(w.waiting, s)
	return s
}

// granted serves who waits in the lane of s, and reports whether s was.
func (l *limiter) granted(s *slot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serveLocked(s.lane)
	if !s.granted && s.ready == nil {
		s.ready = make(chan struct{})
	}
	return s.granted
}

// leave gives up s, granted or not.
func (l *limiter) leave(s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := s.lane
	same := func(o *slot) bool { return o == s }
	if s.granted {
		w.held = slices.DeleteFunc(w.held, same)
		if s.demanded.Load() {
			s.link.demand = time.Now()
		}
		w.wakeLocked()
	} else {
		w.waiting = slices.DeleteFunc(w.waiting, same)
	}
	l.serveLocked(w)
	if len(w.held)+len(w.waiting) == 0 {
		w.stopLocked()
		if l.hosts[s.link.host] == w {
			delete(l.hosts, s.link.host)
		}
	}
}

// serveLocked grants slots to those who wait, in their order, until one has to
// go on waiting.
func (l *limiter) serveLocked(w *lane) {
	for {
		s, class := w.firstLocked()
		if s == nil || !w.mayLocked(class, l.perHost) {
			return
		}
		wait := w.crowdedLocked(s.link, class)
		if wait == 0 {
			wait = take(s.link.rate, class)
		}
		if wait > 0 {
			w.laterLocked(wait, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.serveLocked(w)
			})
			return
		}
		w.waiting = slices.DeleteFunc(w.waiting, func(o *slot) bool { return o == s })
		w.held = append(w.held, s)
		s.granted = true
		if s.ready != nil {
			close(s.ready)
		}
	}
}

// took notes that n bytes of the answer were read.
func (s *slot) took(n int) {
	if s.demanded.Load() {
		return
	}
	s.left.Add(-int64(n))
	s.limiter.mu.Lock()
	defer s.limiter.mu.Unlock()
	if len(s.lane.waiting) > 0 {
		s.limiter.serveLocked(s.lane)
	}
}

// longestPause is how long a body of a lower class is not read on because
// something else is more urgent.
const longestPause = time.Second

// hurried reports whether something more urgent than s is under way.
func (s *slot) hurried() bool { return !s.demanded.Load() && s.calm() != nil }

// pause returns when nothing is any longer, or after a while.
func (s *slot) pause(done <-chan struct{}) {
	late := time.NewTimer(longestPause)
	defer late.Stop()
	for {
		changed := s.changed()
		calm := s.calm()
		if calm == nil {
			return
		}
		select {
		case <-calm:
		case <-changed:
		case <-late.C:
			return
		case <-done:
			return
		}
	}
}

// calm is closed when it is worth asking again; nil if nothing more urgent than
// s is under way.
func (s *slot) calm() <-chan struct{} {
	mine := s.urgency()
	if mine == priority.Demand {
		return nil
	}
	s.limiter.mu.Lock()
	defer s.limiter.mu.Unlock()
	w := s.lane
	if !slices.ContainsFunc(w.held, func(o *slot) bool { return o != s && o.sent.Load() && o.urgency() < mine }) {
		return nil
	}
	if w.quiet == nil {
		w.quiet = make(chan struct{})
	}
	return w.quiet
}
