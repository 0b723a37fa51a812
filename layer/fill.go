package layer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/internal/priority"
)

const (
	fillRun      = 32 << 20 // bytes of the blob in one request
	fillGap      = 4 << 10  // bytes of the blob that are read for nothing rather than asked around; less than a request costs
	fillRequests = 3        // under way at once
	fillHeld     = 16 << 20 // bytes of spans that a request's waiter holds on to
)

// Fill makes all spans present, those of readers being fetched at the time
// included. done, which may be nil, is set to the compressed bytes of spans that
// are present and raised as others come, to the blob's size in the end. The error
// is the first one, of ctx, the source or the store, or ErrVerify; what has been
// fetched until then stays. Where the blob is read from its beginning, that goes
// on when ctx ends, until Close. The class of ctx is that of the work; at
// priority.Fill no range is begun while the layer's Traffic is not idle.
func (l *Layer) Fill(ctx context.Context, done *atomic.Int64) error {
	if done == nil {
		done = new(atomic.Int64)
	}
	f := &filling{l: l, done: done}
	if err := f.run(ctx); err != nil {
		return fmt.Errorf("layer %s: %w", l.x.blob(), err)
	}
	done.Store(l.x.Info.BlobSize)
	return nil
}

// filling is a Fill under way.
type filling struct {
	l    *Layer
	done *atomic.Int64
}

func (f *filling) run(ctx context.Context) error {
	l := f.l
	missing := l.missing(0, len(l.x.Spans))
	present := l.x.Info.BlobSize
	for _, i := range missing {
		present -= l.x.part(i)
	}
	f.done.Store(present)
	if !l.byPass() {
		err := f.byRanges(ctx, missing)
		if !errdefs.IsNotImplemented(err) || !l.byPass() {
			return err
		}
		missing = l.missing(0, len(l.x.Spans))
	}
	count := func(i int, _ arrival, _ error) { f.count(i) }
	missing = l.deliverReused(l.deliverKept(missing, l.readKept, FromStore, count), count)
	return f.wait(ctx, &errand{why: filled, pass: true}, missing)
}

// part returns how many of the blob's bytes count as those of span i. All
// spans together have all.
func (x *Index) part(i int) int64 {
	from, end := int64(0), x.Info.BlobSize
	if !x.seekable() {
		at := func(addr int64) int64 { return int64(float64(end) * float64(addr) / float64(x.Info.AddrSize)) }
		s := &x.Spans[i]
		if i < len(x.Spans)-1 {
			return at(s.Addr+s.Len) - at(s.Addr)
		}
		return end - at(s.Addr)
	}
	if i > 0 {
		from = x.Spans[i].Off
	}
	if i < len(x.Spans)-1 {
		end = x.Spans[i+1].Off
	}
	return end - from
}

// limits are those of a Fill of class c. One that somebody waits for keeps the way
// busy; of another one, no range is longer than a reader should wait for.
func (f *filling) limits(c priority.Class) planLimits {
	if c == priority.Demand {
		return planLimits{gap: fillGap, run: fillRun, requests: fillRequests}
	}
	f.l.measure()
	k := f.l.link()
	lim := k.limits(priority.Fill)
	lim.run = min(lim.run, k.limits(priority.Prefetch).run)
	return lim
}

// byRanges fetches spans by long requests, of class Fill only while the way is
// idle.
func (f *filling) byRanges(ctx context.Context, missing []int) error {
	l, class := f.l, priority.Of(ctx)
	lim := f.limits(class)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lim.requests)
	if l.x.Info.Digests == OfBlob {
		g.SetLimit(1) // each run needs what the one before it ends with
	}
	for _, r := range plan(l.x.Spans, missing, lim) {
		if class == priority.Fill {
			if err := l.traffic.Idle(ctx); err != nil {
				return errors.Join(g.Wait(), err)
			}
		}
		g.Go(func() error {
			return f.wait(ctx, &errand{why: filled, lim: planLimits{gap: lim.gap, run: lim.run, requests: 1}}, r.spans)
		})
	}
	return g.Wait()
}

// wait has an errand fetch spans at once, and waits for some of them at a time.
func (f *filling) wait(ctx context.Context, e *errand, spans []int) error {
	for len(spans) > 0 {
		n, held := 1, f.l.x.Spans[spans[0]].Len
		for n < len(spans) && held+f.l.x.Spans[spans[n]].Len <= fillHeld {
			held += f.l.x.Spans[spans[n]].Len
			n++
		}
		want := slices.DeleteFunc(slices.Clone(spans[:n]), f.count)
		spans = spans[n:]
		if len(want) == 0 {
			continue
		}
		err := f.fetch(ctx, e, request{Want: want, Extra: f.absent(spans), Got: func(i int, _ arrival) { f.count(i) }})
		if err == nil {
			err = f.check(want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *filling) fetch(ctx context.Context, e *errand, r request) error {
	h, err := f.l.begin(ctx, e, r)
	if err != nil {
		return err
	}
	defer h.Leave()
	return h.Wait(ctx)
}

// count counts span i if it is stored, and reports whether it is.
func (f *filling) count(i int) bool {
	if !f.l.store.Has(i) {
		return false
	}
	f.done.Add(f.l.x.part(i))
	return true
}

// absent returns those of the spans that are not stored.
func (f *filling) absent(spans []int) []int {
	return slices.DeleteFunc(slices.Clone(spans), f.l.store.Has)
}

// check tells why spans that came are not stored.
func (f *filling) check(spans []int) error {
	absent := f.absent(spans)
	if len(absent) == 0 {
		return nil
	}
	if err := f.l.refusal.Load(); err != nil {
		return spanError(absent[0], *err)
	}
	return spanError(absent[0], fmt.Errorf("gone from the store: %w", errdefs.ErrResourceExhausted))
}
