package layer

import (
	"cmp"
	"os"
	"slices"
	"sync"
)

// reuse finds what a layer is missing in other layers.
type reuse struct {
	donors func() []Donor // nil: there are none

	once    sync.Once // guards what follows
	lenders []Lender
	places  []loan // by chunk
}

// loan is where a chunk's bytes probably are.
type loan struct {
	chunk  uint32 // row in Chunks
	lender uint32 // index in lenders
	addr   int64  // there
}

// find looks through the donors, once, for what is missing now.
func (r *reuse) find(l *Layer) {
	r.once.Do(func() {
		if _, here := l.store.(*inPlace); r.donors == nil || here || l.x.Info.Digests != OfData {
			return
		}
		q := newQuest(l.x, l.store)
		for _, err := range q.among(r.donors()) {
			l.log.WithError(err).Debug("looking for bytes in other layers")
		}
		slices.SortFunc(q.places, func(a, b loan) int { return cmp.Compare(a.chunk, b.chunk) })
		r.lenders, r.places = q.lenders, q.places
	})
}

// of returns the places of all of the chunks [first, first+n), or nil.
func (r *reuse) of(first, n uint32) []loan {
	i, ok := slices.BinarySearchFunc(r.places, first, func(p loan, chunk uint32) int { return cmp.Compare(p.chunk, chunk) })
	if !ok || i+int(n) > len(r.places) || r.places[i+int(n)-1].chunk != first+n-1 {
		return nil
	}
	return r.places[i : i+int(n)]
}

// reusable reports whether donors probably have span i.
func (l *Layer) reusable(i int) bool {
	l.reuse.find(l)
	c := l.x.Spans[i].Chunks
	return l.reuse.of(c.First, c.Count) != nil
}

// readReused fills p with span i if donors have all of it, and stores it. It
// reports whether it did.
func (l *Layer) readReused(i int, p []byte) bool {
	if !l.reusable(i) {
		return false
	}
	s := &l.x.Spans[i]
	places := l.reuse.of(s.Chunks.First, s.Chunks.Count)
	var ok bool
	var err error
	if len(places) == 1 {
		ok, err = l.borrow(i, p, &places[0])
	} else {
		ok, err = l.collect(i, p, places)
	}
	if err != nil {
		l.log.WithError(err).Debug("bytes of another layer are of no use")
	}
	return ok && err == nil
}

// borrow takes span i from one place, by sharing it on disk if that can be.
func (l *Layer) borrow(i int, p []byte, at *loan) (bool, error) {
	return l.reuse.lenders[at.lender].Lend(p, at.addr, func(file *os.File) error {
		if err := l.x.verifySpan(i, p); err != nil {
			return err
		}
		a, ok := l.store.(Adopter)
		if !ok {
			l.keep(i, p)
			return nil
		}
		if err := a.Adopt(i, l.x.Spans[i].Addr, p, file, at.addr); err != nil {
			l.refusal.Store(&err)
			l.complain(err)
		}
		return nil
	})
}

// collect takes span i from several places, a chunk from each.
func (l *Layer) collect(i int, p []byte, places []loan) (bool, error) {
	s := &l.x.Spans[i]
	for k, c := range l.x.Chunks[s.Chunks.First:][:s.Chunks.Count] {
		at := &places[k]
		if ok, err := l.reuse.lenders[at.lender].Lend(p[c.Addr-s.Addr:][:c.Len], at.addr, nil); !ok || err != nil {
			return false, err
		}
	}
	if err := l.x.verifySpan(i, p); err != nil {
		return false, err
	}
	l.keep(i, p)
	return true, nil
}
