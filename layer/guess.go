package layer

import (
	"slices"
	"sync"
)

// reading is one read, as a forecast needs to know it.
type reading struct {
	addr, size int64
	cold       bool // something of it has to be fetched
	link       Link
	missing    func(span int) bool // not stored
}

// guess are missing spans that may be read soon, in blob order.
type guess struct {
	along []int // to be fetched by the requests of what is missing, at the same class
	later []int // to be fetched by requests of class Prefetch, begun at the same time
}

// forecast guesses what a layer's readers will want. The engine calls touched for
// each span that is read the first time, then next for the read, and fetches
// what it says; forecast accounts for it in the ledger. It may be used
// concurrently.
type forecast struct {
	spans   []Span
	ledger  *ledger // nil: guess nothing
	rumours *rumours
	places  func() []place // asked once, when something is read the first time

	mu      sync.Mutex // guards what follows
	courses courses
	near    neighbours
	fresh   []int   // spans touched since the last next
	ahead   []int   // of next, to be used again
	state   []state // by span
	heard   map[int]told
}

// state is what a forecast has had to do with a span.
type state uint8

const (
	unknown  state = iota
	guessed        // in a family that was read from
	ventured       // in one beside it
	rumoured       // mentioned by a file that was read, or will be
	foreseen       // on a reader's course
	touched
)

const maxFresh = 16 // spans touched by one read whose neighbours are looked at

func newForecast(x *Index, b *ledger, r *rumours) *forecast {
	return &forecast{spans: x.Spans, places: x.places, ledger: b, rumours: r, heard: make(map[int]told)}
}

// beginLocked makes what takes time and memory when a layer is used.
func (f *forecast) beginLocked() {
	if f.state == nil {
		f.state = make([]state, len(f.spans))
		f.near = newNeighbours(f.places())
	}
}

// touched takes note of the first read of a span, and reports whether it had
// been guessed.
func (f *forecast) touched(span int) bool {
	if f.ledger == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beginLocked()
	was := f.state[span]
	if was == touched {
		return false
	}
	f.state[span] = touched
	if len(f.fresh) < maxFresh {
		f.fresh = append(f.fresh, span)
	}
	m := f.near.family[span]
	switch was {
	case guessed, ventured:
		m.change(1, -1)
		if was == ventured {
			m.kind.ventured.right++
		}
	case rumoured:
		f.rumours.change(f.heard[span].how, -1, 1)
		delete(f.heard, span)
		m.change(1, 0)
	case unknown, foreseen, touched:
		m.change(1, 0)
	}
	if was == unknown {
		f.ledger.used(f.spans[span].CLen)
		return false
	}
	f.ledger.repaid(f.spans[span].CLen)
	return true
}

// next takes note of a read and says what to fetch on a guess. Its spans are
// accounted for: whoever does not fetch them calls unused.
func (f *forecast) next(r reading) guess {
	if f.ledger == nil {
		return guess{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beginLocked()
	f.ahead = f.courses.advance(f.ahead[:0], chart{f.spans, f.near.places, f.ledger.allow(course)}, r.addr, r.size)
	if len(f.ahead) == 0 && len(f.fresh) == 0 {
		return guess{}
	}
	g := f.aheadLocked(&r)
	if f.courses.sweeping() { // what is near is ahead
		f.fresh = f.fresh[:0]
		return g
	}
	first, n := spansOf(f.spans, r.addr, r.size)
	for _, i := range f.neighboursLocked(&r) {
		if r.cold && f.alongLocked(&r, first+n-1, i) {
			g.along = append(g.along, i)
		} else {
			g.later = append(g.later, i)
		}
	}
	f.fresh = f.fresh[:0]
	slices.Sort(g.along)
	slices.Sort(g.later)
	return g
}

// aheadLocked guesses what lies on a reader's course.
func (f *forecast) aheadLocked(r *reading) (g guess) {
	for _, i := range f.ahead {
		if !f.freeLocked(r, i) {
			continue
		}
		if !f.ledger.spend(course, f.spans[i].CLen) {
			break
		}
		f.state[i] = foreseen
		if r.cold {
			g.along = append(g.along, i)
		} else {
			g.later = append(g.later, i)
		}
	}
	return g
}

// sweeping reports whether all files are being read in their order, so that no
// other guess is of use.
func (f *forecast) sweeping() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.courses.sweeping()
}

func (f *forecast) freeLocked(r *reading, i int) bool { return f.state[i] == unknown && r.missing(i) }

// alongLocked reports whether a neighbour is had by lengthening a request for what
// ends with span last: what comes behind delays nobody who waits for it.
func (f *forecast) alongLocked(r *reading, last, i int) bool {
	a, b := &f.spans[last], &f.spans[i]
	return i > last && b.Off+b.CLen-(a.Off+a.CLen) <= r.link.product()
}

// unused takes back guesses that were not fetched.
func (f *forecast) unused(spans []int) {
	if f.ledger == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range spans {
		was := f.state[i]
		if was == unknown || was == touched {
			continue
		}
		f.state[i] = unknown
		f.ledger.unspent(f.spans[i].CLen)
		switch was {
		case rumoured:
			f.rumours.change(f.heard[i].how, -1, 0)
			delete(f.heard, i)
			continue
		case foreseen:
			continue
		case unknown, guessed, ventured, touched:
		}
		m := f.near.family[i]
		m.change(0, -1)
		if was == ventured {
			m.kind.ventured.made--
		}
	}
}
