package layer

import (
	"context"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/priority"
)

// outage is a source that used up its patience not long ago.
type outage struct {
	err   error
	until time.Time
}

const (
	longWait  = 2 * time.Second // what a fetch may take that nobody minds repeating
	outageFor = 2 * time.Second // after a longer one that failed, reads fail at once
)

// coldRead is a read that does not find all in the store.
type coldRead struct {
	l    *Layer
	p    []byte
	addr int64
	note Note
}

// readCold fills p, waiting for those of its spans that are not stored, and has
// those fetched that are guessed to be read soon.
func (l *Layer) readCold(ctx context.Context, p []byte, addr int64, g guess) error {
	c := &coldRead{l: l, p: p, addr: addr}
	start := time.Now()
	if priority.Of(ctx) == priority.Demand {
		defer l.traffic.begin()()
	}
	if err := c.run(ctx, g); err != nil {
		return err
	}
	l.counters.cold(addr, int64(len(p)), start, c.note)
	if n := noteIn(ctx); n != nil {
		n.Reused += c.note.Reused
		n.Fetched += c.note.Fetched
	}
	return nil
}

func (c *coldRead) run(ctx context.Context, g guess) error {
	l := c.l
	want := c.stored()
	if !l.byPass() {
		err := c.fetch(ctx, want, g)
		if !errdefs.IsNotImplemented(err) || !l.byPass() {
			return err
		}
	}
	// A pass fills all that is missing, so it is worth looking first whether it
	// can be avoided.
	took := func(i int, a arrival, _ error) { c.take(i, a) }
	want = l.deliverReused(l.deliverKept(want, l.readKept, FromStore, took), took)
	if len(want) == 0 {
		return nil
	}
	r := request{Want: want, Extra: l.missing(0, len(l.x.Spans)), Got: c.take}
	return l.fetchFor(ctx, &errand{why: demanded, pass: true}, r, func() {})
}

// stored fills in what the store has, and returns the other spans.
func (c *coldRead) stored() []int {
	var want []int
	end := c.addr + int64(len(c.p))
	first, n := spansOf(c.l.x.Spans, c.addr, int64(len(c.p)))
	for i := first; i < first+n; i++ {
		sp := &c.l.x.Spans[i]
		from, to := max(c.addr, sp.Addr), min(end, sp.Addr+sp.Len)
		if !c.l.readStored(c.p[from-c.addr:to-c.addr], from, i, 1) {
			want = append(want, i)
		}
	}
	return want
}

// take fills in a span that came.
func (c *coldRead) take(i int, a arrival) {
	at := c.l.x.Spans[i].Addr
	n := copy(c.p[max(at-c.addr, 0):], a.data[max(c.addr-at, 0):])
	c.note.add(a.from, int64(n))
}

// fetch waits for spans that ranges are asked for, and has those fetched that are
// guessed.
func (c *coldRead) fetch(ctx context.Context, want []int, g guess) error {
	l := c.l
	lim := l.link().limits(priority.Demand)
	beside := append(l.between(slices.Concat(want, g.along), lim), g.along...)
	slices.Sort(beside)
	e := &errand{why: demanded, lim: lim, guessed: beside, account: g.along}
	err := l.fetchFor(ctx, e, request{Want: want, Extra: beside, Got: c.take}, func() {
		l.early(ctx, g.later)
		g.later = nil
	})
	l.forecast.unused(g.later)
	return err
}

// fetchFor waits for what a reader wants, and calls meanwhile once that is under
// way. The kernel asks again for a page that it could not read ahead: a reader
// must not wait a second time for a source that has just used up its retries,
// unless it served others meanwhile.
func (l *Layer) fetchFor(ctx context.Context, e *errand, r request, meanwhile func()) error {
	start := time.Now()
	if o := l.outage.Load(); o != nil && start.Before(o.until) {
		l.forecast.unused(e.account)
		return o.err
	}
	h, err := l.begin(ctx, e, r)
	if err != nil {
		return err
	}
	defer h.Leave()
	meanwhile()
	err = h.Wait(ctx)
	now := time.Now()
	switch {
	case err == nil:
		l.served.Store(now.UnixNano())
	case errdefs.IsUnavailable(err) && now.Sub(start) > longWait && l.served.Load() < start.UnixNano():
		l.outage.Store(&outage{err, now.Add(outageFor)})
	}
	return err
}
