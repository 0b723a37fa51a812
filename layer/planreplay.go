package layer

import (
	"cmp"
	"slices"

	"github.com/peelfs/peel/internal/priority"
)

// wanted is a span of one of several layers.
type wanted struct{ layer, span int }

// batch is one run of a layer, to be fetched by Prefetch.
type batch struct {
	layer int
	run   run
}

const (
	replayWaste = 12        // gaps are at most one part of as many of what is wanted
	replayFirst = 512 << 10 // bytes of the stretch of the order that is fetched first; each next one is twice as long
	replayReach = 8         // gaps of a plan; what is needed later is taken along if it lies between spans that are no farther apart
	replayMost  = 16 << 20  // bytes of a stretch
)

// replay puts spans, given in the order in which they will be needed, into few
// long runs, ordered by what is needed first in them. It works on a stretch of the
// order at a time, short at first, so that the first bytes are not kept waiting by
// the last ones; a span that comes twice is taken once. spans are those of each
// layer.
func replay(spans [][]Span, order []wanted, link Link) []batch {
	var all []batch
	left := make(map[wanted]bool, len(order))
	for _, w := range order {
		left[w] = true
	}
	for room := int64(replayFirst); len(order) > 0; room = min(2*room, replayMost) {
		n, bytes := 0, int64(0)
		var stretch []wanted
		for ; n < len(order) && bytes < room; n++ {
			if w := order[n]; left[w] {
				delete(left, w)
				stretch = append(stretch, w)
				bytes += spans[w.layer][w.span].CLen
			}
		}
		stretch = append(stretch, onTheWay(spans, stretch, left, link)...)
		all = append(all, replayStretch(spans, stretch, link)...)
		order = order[n:]
	}
	return all
}

// onTheWay takes from left what lies in gaps that a stretch is read across.
func onTheWay(spans [][]Span, stretch []wanted, left map[wanted]bool, link Link) (more []wanted) {
	gap := link.limits(priority.Prefetch).gap
	sorted := slices.SortedFunc(slices.Values(stretch), func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.layer, b.layer), cmp.Compare(a.span, b.span))
	})
	for k, w := range sorted {
		if k == 0 || sorted[k-1].layer != w.layer {
			continue
		}
		of := spans[w.layer]
		from := sorted[k-1].span
		if of[w.span].Off-of[from].end() > replayReach*gap {
			continue
		}
		for i := from + 1; i < w.span; i++ {
			if one := (wanted{w.layer, i}); left[one] {
				delete(left, one)
				more = append(more, one)
			}
		}
	}
	return more
}

func (s *Span) end() int64 { return s.Off + s.CLen }

// replayStretch is replay of spans all of which are needed soon.
func replayStretch(spans [][]Span, order []wanted, link Link) []batch {
	lim := link.limits(priority.Prefetch)
	lim.waste = replayWaste
	need := make(map[wanted]int, len(order)) // when
	missing := make(map[int][]int)
	for at, w := range order {
		need[w] = at
		missing[w.layer] = append(missing[w.layer], w.span)
	}
	type due struct {
		batch
		at int
	}
	var all []due
	for layer, m := range missing {
		for _, r := range plan(spans[layer], m, lim) {
			at := len(order)
			for _, i := range r.spans {
				at = min(at, need[wanted{layer, i}])
			}
			all = append(all, due{batch{layer, r}, at})
		}
	}
	slices.SortFunc(all, func(a, b due) int { return cmp.Compare(a.at, b.at) })
	batches := make([]batch, len(all))
	for k := range all {
		batches[k] = all[k].batch
	}
	return batches
}
