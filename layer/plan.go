package layer

import (
	"cmp"
	"slices"
	"sort"
)

// Guesses for 40 ms and 100 Mbit/s, where 64 KiB cost 5 ms: a gap is cheaper
// than a round trip, and 4 MiB keep a connection busy for eight of them.
const (
	planGap = 64 << 10 // bytes of the blob
	planRun = 4 << 20  // bytes of the blob
)

// planLimits bound the requests of a plan.
type planLimits struct {
	gap      int64 // bytes between two spans that are read for nothing rather than asked around
	run      int64 // bytes of one request, unless a single span is longer
	requests int   // that are under way at once
}

// readLimits are those of a read.
func readLimits() planLimits { return planLimits{gap: planGap, run: planRun, requests: 4} }

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
	var runs []run
	for k, i := range missing {
		s := &spans[i]
		if len(runs) > 0 {
			last := &runs[len(runs)-1]
			gap, n := s.Off-last.end(), s.Off+s.CLen-last.off
			if gap >= -1 && gap <= lim.gap && n <= lim.run { // gzip spans may share a byte
				last.spans = last.spans[:len(last.spans)+1]
				last.n = n
				continue
			}
		}
		runs = append(runs, run{spans: missing[k : k+1], off: s.Off, n: s.CLen})
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
