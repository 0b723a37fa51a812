package layer

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/internal/priority"
)

// prefetchRanges is how many ranges Prefetch has under way at once.
const prefetchRanges = 6

// Wanted is a span of a layer.
type Wanted struct {
	Layer *Layer
	Span  int
}

// Prefetch fetches those of the spans that are missing, by as few long requests
// as their order allows, while nobody is kept waiting by it. Layers that can only
// be read from their beginning are left out. It returns when all are there or have
// failed, of which it logs the first, or the error of ctx, or of a layer that was
// closed; what is under way then goes on for two seconds. Reads of the spans lead
// to no guesses from now on: whoever gives an order knows better.
func Prefetch(ctx context.Context, t *Traffic, order []Wanted) error {
	p := newReplaying(order)
	g, work := errgroup.WithContext(priority.With(ctx, priority.Prefetch))
	for _, b := range replay(p.spans, p.order, p.link()) {
		if t.ranges.Acquire(work, 1) != nil {
			break
		}
		g.Go(func() error {
			defer t.ranges.Release(1)
			return p.fetch(work, p.layers[b.layer], b.run.spans)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// replaying is a Prefetch under way.
type replaying struct {
	layers []*Layer
	spans  [][]Span // of each layer
	order  []wanted
	failed sync.Once
}

func newReplaying(order []Wanted) *replaying {
	p := &replaying{}
	number := make(map[*Layer]int)
	for _, w := range order {
		l := w.Layer
		if w.Span < 0 || w.Span >= len(l.x.Spans) || l.byPass() {
			continue
		}
		k, ok := number[l]
		if !ok {
			k = len(p.layers)
			number[l] = k
			p.layers, p.spans = append(p.layers, l), append(p.spans, l.x.Spans)
		}
		l.touches.foretell(w.Span)
		if !l.store.Has(w.Span) {
			p.order = append(p.order, wanted{layer: k, span: w.Span})
		}
	}
	return p
}

// link returns what the first source that knows something knows.
func (p *replaying) link() (k Link) {
	for _, l := range p.layers {
		l.measure()
		if k = l.link(); k != (Link{}) {
			break
		}
	}
	return k
}

// fetch has spans of a layer fetched that are missing by now, and waits for them,
// whoever fetches them.
func (p *replaying) fetch(ctx context.Context, l *Layer, spans []int) error {
	var missing []int
	for _, i := range spans {
		if !l.store.Has(i) {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 || l.byPass() || l.refusal.Load() != nil {
		return nil
	}
	lim := l.link().limits(priority.Prefetch)
	lim.waste = replayWaste
	e := &errand{why: prefetched, lim: lim, failed: func(err error) {
		p.failed.Do(func() { l.log.WithError(err).Info("cannot fetch ahead") })
	}}
	h, err := l.begin(ctx, e, request{Extra: append(l.between(missing, lim), missing...)})
	if err != nil {
		return err
	}
	defer h.Leave()
	return h.Settle(ctx)
}
