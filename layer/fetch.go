package layer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

const (
	maxMemory = 64 << 20  // bytes of a layer's spans on their way, a single longer one apart
	maxCLen   = 128 << 20 // bytes of a span in the blob
	spanCost  = 4 << 10   // bytes that a span on its way takes beside its data
)

// deliver hands a span's verified bytes, or why there are none, to those who
// wait for it. It is called once per span.
type deliver func(span int, data []byte, err error)

// fetch is the flight.Work of readers: it delivers the claimed spans from the
// store or else from the blob, and stores what it has fetched.
func (l *Layer) fetch(ctx context.Context, claimed []int, done func(int, []byte, error)) {
	l.fetchBy(ctx, claimed, readLimits(), done)
}

func (l *Layer) fetchBy(ctx context.Context, claimed []int, lim planLimits, done deliver) {
	slices.Sort(claimed)
	done = l.noticing(done)
	l.share(ctx, l.deliverKept(claimed, l.readKept, done), done, func(missing []int, done deliver) {
		l.fetchRanges(ctx, missing, lim, done)
	})
}

// fetchRanges fetches and delivers spans by requests for their own bytes.
func (l *Layer) fetchRanges(ctx context.Context, missing []int, lim planLimits, done deliver) {
	linked := l.x.Info.Digests == OfBlob
	if linked {
		missing, lim = l.deliverLies(missing, done), linkedLimits(lim)
	}
	var g errgroup.Group
	g.SetLimit(lim.requests)
	for _, r := range plan(l.x.Spans, missing, lim) {
		g.Go(func() error {
			body := &spanReader{src: l.src, end: r.end()}
			var rest []int
			var err error
			if linked {
				rest, err = l.readLinked(ctx, body, r.spans, l.again, done)
			} else {
				rest, err = l.readRun(ctx, body, r.spans, func(i int, blob []byte) { l.land(ctx, i, blob, done) })
			}
			for _, i := range rest {
				done(i, nil, spanError(i, err))
			}
			return body.close()
		})
	}
	_ = g.Wait() // each span has its own outcome
}

func spanError(span int, err error) error { return fmt.Errorf("span %d: %w", span, err) }

// deliverKept delivers the spans that read finds, be it that another flight
// ended just now, and returns the others.
func (l *Layer) deliverKept(claimed []int, read func(int, []byte) bool, done deliver) []int {
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
		done(i, p, nil)
		p = nil
	}
	return missing
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
		weight, err := l.reserve(ctx, i)
		if err != nil {
			return spans[k:], err
		}
		blob, err := body.next(ctx, &l.x.Spans[i])
		if err != nil {
			l.memory.Release(weight)
			return spans[k:], err
		}
		decoding.Go(func() {
			defer l.memory.Release(weight)
			land(i, blob)
		})
	}
	return nil, nil
}

// reserve waits for room for span i and returns how much to release later.
func (l *Layer) reserve(ctx context.Context, i int) (int64, error) {
	sp := &l.x.Spans[i]
	if sp.CLen > maxCLen {
		return 0, fmt.Errorf("%w: %d compressed bytes, the limit is %d", ErrMalformed, sp.CLen, maxCLen)
	}
	weight := min(sp.Len+sp.CLen+spanCost, maxMemory)
	return weight, l.memory.Acquire(ctx, weight)
}

// land delivers and stores span i, whose bytes of the blob are given.
func (l *Layer) land(ctx context.Context, i int, blob []byte, done deliver) {
	data, err := l.decode(ctx, i, blob)
	if err != nil {
		data, err = l.again(ctx, i, err)
	}
	if err != nil {
		done(i, nil, err)
		return
	}
	l.keep(i, data)
	done(i, data, nil)
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
	if err := l.decoders.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer l.decoders.Release(1)
	data := make([]byte, l.x.Spans[i].Len)
	if err := l.x.decodeSpan(i, blob, data); err != nil {
		return nil, err
	}
	return data, nil
}

// keep stores a verified span. A full disk makes reads slow, not wrong.
func (l *Layer) keep(i int, data []byte) {
	if err := l.store.Put(i, l.x.Spans[i].Addr, data); err != nil {
		l.refusal.Store(&err)
		l.complain(err)
	}
}
