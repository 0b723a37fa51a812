package layer

import (
	"cmp"
	"slices"
	"sort"
)

const (
	planGap   = 64 << 10 // bytes of the blob: cheaper than a round trip at 40 ms and 12.5 MB/s, where it costs 5 ms
	planSpare = 16 << 10 // bytes of the blob: of all gaps of a plan that are longer than planTiny, what nobody minds
	planTiny  = 4 << 10  // bytes of the blob, less than a request itself costs
)

// planLimits bound the requests of a plan.
type planLimits struct {
	gap      int64 // bytes between two spans that are read for nothing rather than asked around
	run      int64 // bytes of one request, unless a single span is longer
	requests int   // that are under way at once
	waste    int64 // all gaps but tiny ones are at most planSpare and one part of as many of what is missing; 0: any
	split    int64 // a run that is longer is cut into as many as are under way at once; 0: never
}

// run is one request: the blob's bytes [off, off+n), which hold those of spans
// in blob order, with a byte of overlap at most and gaps of at most planLimits.gap.
type run struct {
	spans  []int
	off, n int64
}

func (r *run) end() int64 { return r.off + r.n }

// plan cuts the missing spans, which it sorts, into requests: every one is in
// exactly one run, and runs are in blob order.
func plan(spans []Span, missing []int, lim planLimits) []run {
	slices.SortFunc(missing, func(a, b int) int {
		return cmp.Or(cmp.Compare(spans[a].Off, spans[b].Off), cmp.Compare(a, b))
	})
	gap := cheapGap(spans, missing, lim)
	var runs []run
	for k, i := range missing {
		s := &spans[i]
		if len(runs) > 0 {
			last := &runs[len(runs)-1]
			between, n := s.Off-last.end(), s.Off+s.CLen-last.off
			if between >= -1 && between <= gap && n <= lim.run { // gzip spans may share a byte
				last.spans = last.spans[:len(last.spans)+1]
				last.n = n
				continue
			}
		}
		runs = append(runs, run{spans: missing[k : k+1], off: s.Off, n: s.CLen})
	}
	if len(runs) == 1 && lim.split > 0 && runs[0].n > lim.split {
		return runs[0].split(spans, lim)
	}
	return runs
}

// cheapGap returns up to how long gaps may be, so that all together stay within
// the limits.
func cheapGap(spans []Span, sorted []int, lim planLimits) int64 {
	if lim.waste == 0 {
		return lim.gap
	}
	var gaps []int64
	var useful, end int64
	for k, i := range sorted {
		s := &spans[i]
		if gap := s.Off - end; k > 0 && gap > planTiny && gap <= lim.gap {
			gaps = append(gaps, gap)
		}
		useful += s.CLen
		end = s.Off + s.CLen
	}
	slices.Sort(gaps)
	left := useful/lim.waste + planSpare
	for _, gap := range gaps {
		if left -= gap; left < 0 {
			return gap - 1
		}
	}
	return lim.gap
}

// split cuts a run, in which no gap is longer than there may be, into pieces of
// about the same length, at least half of lim.split but for the last.
func (r run) split(spans []Span, lim planLimits) []run {
	size := max(r.n/int64(max(lim.requests, 1)), lim.split/2)
	var runs []run
	for k, i := range r.spans {
		s := &spans[i]
		if k > 0 {
			if last := &runs[len(runs)-1]; last.n < size {
				last.spans = last.spans[:len(last.spans)+1]
				last.n = s.Off + s.CLen - last.off
				continue
			}
		}
		runs = append(runs, run{spans: r.spans[k : k+1], off: s.Off, n: s.CLen})
	}
	return runs
}

// spansOf returns the spans [first, first+n) that hold the addresses
// [addr, addr+size), which are not empty and lie in the address space.
func spansOf(spans []Span, addr, size int64) (first, n int) {
	first = sort.Search(len(spans), func(i int) bool { return spans[i].Addr+spans[i].Len > addr })
	for end := addr + size; first+n < len(spans) && spans[first+n].Addr < end; n++ {
	}
	return first, n
}

// spansWithin returns the spans [first, first+n) that lie wholly in the
// addresses [from, to).
func spansWithin(spans []Span, from, to int64) (first, n int) {
	first = sort.Search(len(spans), func(i int) bool { return spans[i].Addr >= from })
	for first+n < len(spans) && spans[first+n].Addr+spans[first+n].Len <= to {
		n++
	}
	return first, n
}
