package layer

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// even returns n spans of size addresses each.
func even(n int, size int64) []Span {
	spans := make([]Span, n)
	for i := range spans {
		spans[i] = Span{Addr: int64(i) * size, Len: size, Off: int64(i) * size, CLen: size}
	}
	return spans
}

// cast is a forecast for spans that are files of their own, perDir to a directory,
// and which of them are missing.
func cast(spans []Span, perDir int) (*forecast, []bool) {
	missing := make([]bool, len(spans))
	for i := range missing {
		missing[i] = true
	}
	return &forecast{spans: spans, ledger: new(ledger), places: func() []place {
		all := make([]place, len(spans))
		for i := range all {
			all[i] = place{file: uint32(i), dir: uint32(i / perDir), kind: 1}
		}
		return all
	}}, missing
}

// read reads spans as Layer does, and takes all guesses for fetched.
func (f *forecast) read(missing []bool, first, n int) (cold bool, g guess) {
	for i := first; i < first+n; i++ {
		f.touched(i)
		cold = cold || missing[i]
	}
	last := &f.spans[first+n-1]
	addr := f.spans[first].Addr
	g = f.next(reading{addr: addr, size: last.Addr + last.Len - addr, cold: cold, missing: func(i int) bool { return missing[i] }})
	for _, i := range slices.Concat(g.along, g.later, upTo(first, n)) {
		missing[i] = false
	}
	return cold, g
}

func upTo(first, n int) (all []int) {
	for i := first; i < first+n; i++ {
		all = append(all, i)
	}
	return all
}

func TestForecastFamily(t *testing.T) {
	t.Parallel()
	f, missing := cast(even(400, 2<<10), 10)
	colds := 0
	for d := 100; d < 200; d += 10 { // ten directories side by side, each in an odd order
		for k := range 10 {
			if cold, _ := f.read(missing, d+k*7%10, 1); cold {
				colds++
			}
		}
	}
	if colds > 5 {
		t.Errorf("%d of 100 files were waited for, at most 5 wanted", colds)
	}
}

func TestForecastLeavesPresentAlone(t *testing.T) {
	t.Parallel()
	f, missing := cast(even(30, 2<<10), 10)
	missing[13], missing[15] = false, false
	_, g := f.read(missing, 14, 1)
	all := append(g.along, g.later...)
	if slices.Contains(all, 13) || slices.Contains(all, 14) || slices.Contains(all, 15) {
		t.Errorf("guessed what is there: %v", all)
	}
	if !slices.Contains(g.along, 16) || slices.Contains(g.along, 12) {
		t.Errorf("along: %v, want what lies behind only", g.along)
	}
}

func TestForecastUnused(t *testing.T) {
	t.Parallel()
	f, missing := cast(even(30, 2<<10), 10)
	_, g := f.read(missing, 14, 1)
	all := slices.Concat(g.along, g.later)
	if len(all) == 0 || f.ledger.open == 0 {
		t.Fatal("nothing was guessed")
	}
	f.unused(all)
	if f.ledger.open != 0 {
		t.Errorf("%d bytes are open of guesses that were taken back", f.ledger.open)
	}
	if f.touched(all[0]) {
		t.Error("what was taken back counts as guessed")
	}
}

func TestForecastOfNothing(t *testing.T) {
	t.Parallel()
	f := newForecast(&Index{Spans: even(4, 10)}, nil, nil)
	f.unused([]int{1})
	if f.touched(1) {
		t.Error("guessed")
	}
	if diff := cmp.Diff(guess{}, f.next(reading{size: 10, cold: true}), cmp.AllowUnexported(guess{})); diff != "" {
		t.Error(diff)
	}
}

// FuzzForecast: guesses are missing, new, in order, and cost what the ledger says
// and no more than it may be.
func FuzzForecast(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, uint8(10), uint16(2000))
	f.Add([]byte{200, 196, 192, 188, 184, 0, 0, 77}, uint8(1), uint16(60000))
	f.Add([]byte{10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110}, uint8(255), uint16(100))
	f.Fuzz(func(t *testing.T, reads []byte, perDir uint8, size uint16) {
		f, missing := cast(even(256, 1+int64(size)*16), max(int(perDir), 1))
		wasted, read := int64(0), make([]bool, len(missing))
		var used int64
		open := make(map[int]bool)
		for _, b := range reads {
			first, n := int(b), min(1+int(b)%3, len(missing)-int(b))
			for i := first; i < first+n; i++ {
				delete(open, i)
				if !read[i] {
					read[i] = true
					used += f.spans[i].CLen
				}
			}
			before := slices.Clone(missing)
			_, g := f.read(missing, first, n)
			if !slices.IsSorted(g.along) || !slices.IsSorted(g.later) {
				t.Errorf("out of order: %v", g)
			}
			for _, i := range slices.Concat(g.along, g.later) {
				if !before[i] || open[i] || read[i] {
					t.Errorf("span %d was not missing", i)
				}
				open[i] = true
			}
			wasted = 0
			for i := range open {
				wasted += f.spans[i].CLen
			}
			if wasted != f.ledger.open || used != f.ledger.touched {
				t.Fatalf("%d bytes open and %d touched, the ledger has %+v", wasted, used, f.ledger)
			}
			if wasted > course.limit(used) {
				t.Fatalf("%d bytes open of %d touched", wasted, used)
			}
		}
	})
}
