package layer

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// laid returns spans with the given pairs of blob offset and length, each of
// ten addresses.
func laid(pairs ...int64) []Span {
	var spans []Span
	for i := 0; i < len(pairs); i += 2 {
		spans = append(spans, Span{Addr: int64(5 * i), Len: 10, Off: pairs[i], CLen: pairs[i+1]})
	}
	return spans
}

func TestPlan(t *testing.T) {
	t.Parallel()
	type want struct {
		Spans  []int
		Off, N int64
	}
	lim := planLimits{gap: 10, run: 100}
	for _, tc := range []struct {
		name    string
		spans   []Span
		missing []int
		want    []want
	}{
		{"nothing", laid(0, 10), nil, nil},
		{"one", laid(0, 10, 10, 10), []int{1}, []want{{[]int{1}, 10, 10}}},
		{"neighbours", laid(0, 10, 10, 10, 20, 5), []int{0, 1, 2}, []want{{[]int{0, 1, 2}, 0, 25}}},
		{"across a cheap gap", laid(0, 10, 10, 10, 20, 5), []int{0, 2}, []want{{[]int{0, 2}, 0, 25}}},
		{"not across a dear gap", laid(0, 10, 10, 11, 21, 5), []int{0, 2}, []want{{[]int{0}, 0, 10}, {[]int{2}, 21, 5}}},
		{"a long stretch is split", laid(0, 60, 60, 40, 100, 1), []int{0, 1, 2}, []want{{[]int{0, 1}, 0, 100}, {[]int{2}, 100, 1}}},
		{"a long span is one request", laid(0, 500, 500, 1), []int{0, 1}, []want{{[]int{0}, 0, 500}, {[]int{1}, 500, 1}}},
		{"blob in another order than addresses", laid(20, 10, 0, 10, 10, 10), []int{0, 1, 2}, []want{{[]int{1, 2, 0}, 0, 30}}},
		{"overlapping spans come alone", laid(0, 10, 5, 10), []int{1, 0}, []want{{[]int{0}, 0, 10}, {[]int{1}, 5, 10}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got []want
			for _, r := range plan(tc.spans, tc.missing, lim) {
				got = append(got, want{r.spans, r.off, r.n})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanWithinItsOverhead(t *testing.T) {
	t.Parallel()
	const k = 1 << 10
	// 64 spans of 3 KiB, gaps of 5 and 33 KiB by turns.
	var pairs []int64
	for i := range int64(64) {
		pairs = append(pairs, i/2*(44*k)+i%2*(8*k), 3*k)
	}
	spans := laid(pairs...)
	every := func() (all []int) {
		for i := range spans {
			all = append(all, i)
		}
		return all
	}
	for _, tc := range []struct {
		name string
		lim  planLimits
		runs int
	}{
		{"any", planLimits{gap: 64 * k, run: 4 << 20}, 1},
		{"a share and what nobody minds: too little for the short gaps", planLimits{gap: 64 * k, run: 4 << 20, waste: 8}, 64},
		{"the short ones", planLimits{gap: 64 * k, run: 4 << 20, waste: 1}, 32},
		{"nothing is split that is short", planLimits{gap: 64 * k, run: 4 << 20, requests: 4, split: 2 << 20}, 1},
		{"a single long run is split", planLimits{gap: 64 * k, run: 4 << 20, requests: 4, split: 512 * k}, 4},
		{"into pieces that are not too short", planLimits{gap: 64 * k, run: 4 << 20, requests: 4, split: 1024 * k}, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			runs := plan(spans, every(), tc.lim)
			checkPlan(t, spans, every(), runs, tc.lim)
			if len(runs) != tc.runs {
				t.Errorf("%d runs, want %d", len(runs), tc.runs)
			}
		})
	}
}

// FuzzPlan lays spans out as the bytes say and checks what every plan must be:
// it covers what is missing once, in order, within bounds, at a bounded cost.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{}, uint16(10), uint16(100), uint8(0), uint8(0))
	f.Add([]byte{0, 0, 10, 1, 10, 0, 10, 1, 20, 0, 5, 1}, uint16(10), uint16(100), uint8(8), uint8(0))
	f.Add([]byte{200, 1, 10, 1, 0, 0, 10, 1, 100, 0, 250, 0, 5, 0, 90, 1}, uint16(0), uint16(1), uint8(0), uint8(9))
	f.Add([]byte{0, 0, 255, 1, 255, 0, 255, 1, 254, 1, 255, 1, 253, 2, 255, 3}, uint16(300), uint16(600), uint8(12), uint8(100))
	f.Add([]byte{0, 0, 255, 1, 0, 20, 255, 1, 0, 60, 255, 1, 0, 120, 255, 1, 0, 200, 255, 1}, uint16(60000), uint16(65000), uint8(1), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, gap, size uint16, waste, split uint8) {
		var spans []Span
		var missing []int
		for ; len(data) >= 4; data = data[4:] {
			if data[3]&1 != 0 {
				missing = append(missing, len(spans))
			}
			spans = append(spans, Span{Off: int64(binary.LittleEndian.Uint16(data)), CLen: 1 + int64(data[2])})
		}
		lim := planLimits{gap: int64(gap), run: int64(size), requests: 4, waste: int64(waste), split: int64(split)}
		checkPlan(t, spans, slices.Clone(missing), plan(spans, missing, lim), lim)
	})
}

func checkPlan(t *testing.T, spans []Span, missing []int, runs []run, lim planLimits) {
	t.Helper()
	var covered []int
	var skipped, wanted int64 // bytes
	last := int64(-1)
	for _, r := range runs {
		if r.off < last {
			t.Errorf("run at %d after one at %d", r.off, last)
		}
		last = r.off
		if r.n > lim.run && len(r.spans) > 1 {
			t.Errorf("run of %d spans and %d bytes, limit %d", len(r.spans), r.n, lim.run)
		}
		at, useful := r.off, int64(0)
		for _, i := range r.spans {
			if gap := spans[i].Off - at; gap < -1 || gap > lim.gap {
				t.Errorf("gap of %d before span %d, limit %d", gap, i, lim.gap)
			}
			if gap := spans[i].Off - at; gap > planTiny {
				skipped += gap
			}
			wanted += spans[i].CLen
			at = spans[i].Off + spans[i].CLen
			useful += spans[i].CLen
		}
		if at != r.end() {
			t.Errorf("run ends at %d, its last span at %d", r.end(), at)
		}
		if waste := r.n - useful; waste > lim.gap*int64(len(r.spans)-1) {
			t.Errorf("%d bytes read for nothing between %d spans", waste, len(r.spans))
		}
		covered = append(covered, r.spans...)
	}
	if lim.waste > 0 && skipped > wanted/lim.waste+planSpare {
		t.Errorf("%d bytes read for nothing for the sake of %d", skipped, wanted)
	}
	slices.Sort(covered)
	if diff := cmp.Diff(missing, covered); diff != "" {
		t.Errorf("covered spans: %s", diff)
	}
}

func TestSpanSearch(t *testing.T) {
	t.Parallel()
	spans := laid(0, 1, 1, 1, 2, 1, 3, 1)
	type pair struct{ First, N int }
	for _, tc := range []struct {
		name       string
		addr, size int64
		of, within pair
	}{
		{"first byte", 0, 1, pair{0, 1}, pair{0, 0}},
		{"one span", 10, 10, pair{1, 1}, pair{1, 1}},
		{"last byte of a span", 19, 1, pair{1, 1}, pair{2, 0}},
		{"across a border", 19, 2, pair{1, 2}, pair{2, 0}},
		{"parts around a whole", 5, 20, pair{0, 3}, pair{1, 1}},
		{"all", 0, 40, pair{0, 4}, pair{0, 4}},
		{"beyond the end", 25, 40, pair{2, 2}, pair{3, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var of, within pair
			of.First, of.N = spansOf(spans, tc.addr, tc.size)
			within.First, within.N = spansWithin(spans, tc.addr, tc.addr+tc.size)
			if diff := cmp.Diff([]pair{tc.of, tc.within}, []pair{of, within}); diff != "" {
				t.Error(diff)
			}
		})
	}
}
