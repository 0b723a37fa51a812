package layer

import (
	"github.com/peelfs/peel/internal/priority"
)

// read is what Layer.read does.
func (s *sim) read(k int) {
	r := &s.t.Reads[k]
	first, n := spansOf(s.t.Layers[r.Layer].spans, r.Addr, r.Size)
	var want []int
	for i := first; i < first+n; i++ {
		s.touch(r.Layer, i)
		sp := &s.spans[r.Layer][i]
		switch {
		case sp.stored:
			continue
		case sp.req == nil:
			want = append(want, i)
		default:
			s.promote(sp.req)
		}
		sp.waiting = append(sp.waiting, k)
		s.waits[k]++
	}
	g := s.guess(r, len(want) > 0, first, n)
	s.fetch(r.Layer, append(want, g.along...), priority.Demand)
	s.fetch(r.Layer, g.later, priority.Prefetch)
	if s.waits[k] == 0 {
		s.answer(k)
	}
}

func (s *sim) touch(layer, i int) {
	sp := &s.spans[layer][i]
	if sp.touched {
		return
	}
	sp.touched = true
	s.result.wanted += s.t.Layers[layer].spans[i].CLen
	if s.casts[layer].touched(i) {
		s.result.struck++
	}
	if sp.stored {
		s.hear(layer, i)
	}
}

// hear is what Layer.hear does.
func (s *sim) hear(layer, i int) {
	sp := &s.spans[layer][i]
	chance := s.casts[layer].certainty(i)
	if s.policy != policyFull || sp.heard || chance < heardChance {
		return
	}
	sp.heard = true
	by := make([][]mentioned, len(s.casts))
	for _, m := range s.t.Layers[layer].heard[i] {
		by[m.layer] = append(by[m.layer], mentioned{m.span, m.how, chance})
	}
	for to, all := range by {
		spans := s.casts[to].hear(all, func(i int) bool { return !s.spans[to][i].stored && s.spans[to][i].req == nil })
		s.result.guesses += len(spans)
		s.fetch(to, spans, priority.Prefetch)
	}
}

func (s *sim) guess(r *traceRead, cold bool, first, n int) guess {
	f := s.casts[r.Layer]
	if s.policy == policyNone || s.policy == policyReplay {
		return guess{}
	}
	if s.policy == policyCourse {
		f.fresh = f.fresh[:0]
	}
	g := f.next(reading{addr: r.Addr, size: r.Size, cold: cold, link: s.link, missing: func(i int) bool {
		sp := &s.spans[r.Layer][i]
		return !sp.stored && sp.req == nil && (i < first || i >= first+n)
	}})
	s.result.guesses += len(g.along) + len(g.later)
	return g
}

// fetch plans as Layer does: missing spans that would be read for nothing are
// taken, too.
func (s *sim) fetch(layer int, spans []int, c priority.Class) {
	if len(spans) == 0 {
		return
	}
	lim := s.link.limits(c)
	for _, run := range plan(s.t.Layers[layer].spans, spans, lim) {
		for k := 1; k < len(run.spans); k++ {
			for i := run.spans[k-1] + 1; i < run.spans[k]; i++ {
				if sp := &s.spans[layer][i]; !sp.stored && sp.req == nil {
					spans = append(spans, i)
				}
			}
		}
	}
	for _, run := range plan(s.t.Layers[layer].spans, spans, lim) {
		s.enqueue(&simRequest{layer: layer, run: run, class: c})
	}
}

func (s *sim) enqueue(r *simRequest) {
	for _, i := range r.run.spans {
		s.spans[r.layer][i].req = r
	}
	s.queues[r.class] = append(s.queues[r.class], r)
}

// promote makes a request that waits as urgent as those that readers wait for.
func (s *sim) promote(r *simRequest) {
	for k, queued := range s.queues[r.class] {
		if queued == r && r.class != priority.Demand {
			s.queues[r.class] = append(s.queues[r.class][:k:k], s.queues[r.class][k+1:]...)
			s.queues[priority.Demand] = append(s.queues[priority.Demand], r)
			break
		}
	}
	r.class = priority.Demand
}

// beginReplay has everything prefetched that the trace reads, in its order.
func (s *sim) beginReplay() {
	var spans [][]Span
	for i := range s.t.Layers {
		spans = append(spans, s.t.Layers[i].spans)
	}
	var order []wanted
	for _, r := range s.t.Reads {
		first, n := spansOf(spans[r.Layer], r.Addr, r.Size)
		for i := first; i < first+n; i++ {
			order = append(order, wanted{r.Layer, i})
		}
	}
	for _, b := range replay(spans, order, s.link) {
		s.enqueue(&simRequest{layer: b.layer, run: b.run, class: priority.Prefetch})
	}
}
