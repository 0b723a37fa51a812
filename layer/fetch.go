package layer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/internal/flight"
)

const (
	maxCLen  = 128 << 20 // bytes of a span in the blob
	spanCost = 4 << 10   // bytes that a span on its way takes beside its data
)

// deliver hands a span's verified bytes, or why there are none, to those who
// wait for it. It is called once per span.
type deliver func(span int, a arrival, err error)

// fetching is the work of an errand by requests for ranges: it delivers the
// claimed spans from the store, from other layers, or else from the blob, and
// stores what it has fetched.
func (l *Layer) fetching(e *errand) flight.Work[int, arrival] {
	return func(ctx context.Context, claimed []int, done func(int, arrival, error)) {
		defer l.settle(e)
		slices.Sort(claimed)
		count := l.noticing(l.counting(ctx, e, done))
		l.share(ctx, l.deliverKept(claimed, l.readKept, FromStore, count), count, func(missing []int, done deliver) {
			l.fetchRanges(ctx, l.deliverReused(missing, done), e, done)
		})
	}
}

// fetchRanges fetches and delivers spans by requests for their own bytes.
func (l *Layer) fetchRanges(ctx context.Context, missing []int, e *errand, done deliver) {
	linked, lim := l.x.Info.Digests == OfBlob, e.lim
	if linked {
		missing, lim = l.deliverLies(missing, done), linkedLimits(lim)
	}
	runs := plan(l.x.Spans, missing, lim)
	slices.SortStableFunc(runs, func(a, b run) int { return cmp.Compare(e.urgency(a.spans), e.urgency(b.spans)) })
	var g errgroup.Group
	g.SetLimit(lim.requests)
	for _, r := range runs {
		g.Go(func() error {
			body := &spanReader{src: l.src, end: r.end()}
			var rest []int
			var err error
			if linked {
				rest, err = l.readLinked(ctx, body, r.spans, l.again, done)
			} else {
				l.counters.between.Add(r.skipped(l.x.Spans))
				rest, err = l.readRun(ctx, body, r.spans, func(i int, blob []byte) { l.land(ctx, i, blob, done) })
			}
			for _, i := range rest {
				done(i, arrival{}, spanError(i, err))
			}
			return body.close()
		})
	}
	_ = g.Wait() // each span has its own outcome
}

// skipped returns how many bytes of a run are of none of its spans.
func (r *run) skipped(spans []Span) int64 {
	n := r.n
	for _, i := range r.spans {
		n -= spans[i].CLen
	}
	return max(n, 0) // gzip spans may share a byte
}

// between returns those missing spans that a plan for others would read for
// nothing.
func (l *Layer) between(others []int, lim planLimits) (spans []int) {
	if l.x.Info.Digests == OfBlob {
		return nil // each has to be proved
	}
	for _, r := range plan(l.x.Spans, others, lim) {
		for k := 1; k < len(r.spans); k++ {
			for i := r.spans[k-1] + 1; i < r.spans[k]; i++ {
				if l.absent(i) {
					spans = append(spans, i)
				}
			}
		}
	}
	return spans
}

func spanError(span int, err error) error { return fmt.Errorf("span %d: %w", span, err) }

// deliverKept delivers the spans that read finds, be it that another flight
// ended just now, and returns the others.
func (l *Layer) deliverKept(claimed []int, read func(int, []byte) bool, from Origin, done deliver) []int {
	var missing []int
	var p []byte
	for _, i := range claimed {
		sp := &l.x.Spans[i]
		if int64(cap(p)) < sp.Len {
			p = make([]byte, sp.Len)
		}
		p = p[:sp.Len]
		if !read(i, p) {
			missing = append(missing, i)
			continue
		}
		done(i, arrival{p, from}, nil)
		p = nil
	}
	return missing
}

// deliverReused is deliverKept of what other layers have.
func (l *Layer) deliverReused(missing []int, done deliver) []int {
	var theirs, rest []int
	for _, i := range missing {
		if l.reusable(i) {
			theirs = append(theirs, i)
		} else {
			rest = append(rest, i)
		}
	}
	if len(theirs) == 0 {
		return missing
	}
	rest = append(rest, l.deliverKept(theirs, l.readReused, FromReuse, done)...)
	slices.Sort(rest)
	return rest
}

// readWhole fills p with span i if the store has it.
func (l *Layer) readWhole(i int, p []byte) bool {
	return l.store.Has(i) && l.readStored(p, l.x.Spans[i].Addr, i, 1)
}

// readKept fills p with span i if the store has it, be it from before the
// last boot.
func (l *Layer) readKept(i int, p []byte) bool {
	if l.readWhole(i, p) {
		return true
	}
	r, ok := l.store.(Rechecker)
	if !ok || l.x.Info.Digests == OfBlob {
		return false
	}
	if ok, err := r.Recheck(i, l.x.Spans[i].Addr, p); err != nil || !ok {
		return false
	}
	if err := l.x.verifySpan(i, p); err != nil {
		l.log.WithError(err).Warn("stored bytes are wrong; fetching them again")
		return false
	}
	r.Confirm(i)
	return true
}

// readRun reads the spans of a run and hands the bytes of each to land, in a
// goroutine of its own, as soon as they are there. It returns the spans it got
// no bytes for, and why.
func (l *Layer) readRun(ctx context.Context, body *spanReader, spans []int, land func(i int, blob []byte)) ([]int, error) {
	var decoding sync.WaitGroup
	defer decoding.Wait()
	for k, i := range spans {
		room, err := l.reserve(ctx, i)
		if err != nil {
			return spans[k:], err
		}
		blob, err := body.next(ctx, &l.x.Spans[i])
		if err != nil {
			room.release()
			return spans[k:], err
		}
		decoding.Go(func() {
			defer room.release()
			land(i, blob)
		})
	}
	return nil, nil
}

// reserve waits for room for span i.
func (l *Layer) reserve(ctx context.Context, i int) (grant, error) {
	sp := &l.x.Spans[i]
	if sp.CLen > maxCLen {
		return grant{}, fmt.Errorf("%w: %d compressed bytes, the limit is %d", ErrMalformed, sp.CLen, maxCLen)
	}
	return l.traffic.memory.acquire(ctx, sp.Len+sp.CLen+spanCost)
}

// land delivers and stores span i, whose bytes of the blob are given.
func (l *Layer) land(ctx context.Context, i int, blob []byte, done deliver) {
	data, err := l.decode(ctx, i, blob)
	if err != nil {
		data, err = l.again(ctx, i, err)
	}
	if err != nil {
		done(i, arrival{}, err)
		return
	}
	l.keep(i, data)
	done(i, arrival{data, FromNetwork}, nil)
}

// again fetches span i anew, whose bytes proved wrong as cause tells: a proxy or
// a mirror may have handed out bad ones.
func (l *Layer) again(ctx context.Context, i int, cause error) ([]byte, error) {
	if ctx.Err() == nil {
		l.log.WithError(cause).Warn("fetching a span again")
	}
	for try := 0; try < maxAgain && ctx.Err() == nil; try++ {
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
		l.counters.again.Add(1)
		sp := &l.x.Spans[i]
		body := &spanReader{src: l.src, end: sp.Off + sp.CLen}
		blob, err := body.next(ctx, sp)
		if err = errors.Join(err, body.close()); err != nil {
			return nil, fmt.Errorf("%w; fetched again: %w", cause, err)
		}
		data, err := l.decode(ctx, i, blob)
		if err == nil {
			return data, nil
		}
		cause = err
	}
	return nil, cause
}

// decode returns the verified bytes of span i.
func (l *Layer) decode(ctx context.Context, i int, blob []byte) ([]byte, error) {
	turn, err := l.traffic.decoders.acquire(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer turn.release()
	data := make([]byte, l.x.Spans[i].Len)
	if err := l.x.decodeSpan(i, blob, data); err != nil {
		return nil, err
	}
	return data, nil
}

// keep stores a verified span. A full disk makes reads slow, not wrong.
func (l *Layer) keep(i int, data []byte) {
	err := l.store.Put(i, l.x.Spans[i].Addr, data)
	switch {
	case err != nil:
		l.refusal.Store(&err)
		l.complain(err)
	case l.refusal.Load() != nil:
		l.refusal.Store(nil)
	}
}
