package layer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReplay(t *testing.T) {
	t.Parallel()
	const k = 1 << 10
	layers := [][]Span{even(100, 8*k), even(100, 300*k)}
	pick := func(layer int, spans ...int) (w []wanted) {
		for _, i := range spans {
			w = append(w, wanted{layer, i})
		}
		return w
	}
	type got struct {
		Layer int
		Spans []int
	}
	for _, tc := range []struct {
		name  string
		order []wanted
		want  []got
	}{
		{"nothing", nil, nil},
		{"neighbours in any order", pick(0, 5, 3, 4), []got{{0, []int{3, 4, 5}}}},
		{"twice", pick(0, 5, 5), []got{{0, []int{5}}}},
		{"what is needed first", append(pick(1, 7), pick(0, 1, 2)...), []got{{1, []int{7}}, {0, []int{1, 2}}}},
		{"far apart", pick(0, 90, 1), []got{{0, []int{90}}, {0, []int{1}}}},
		{"the first bytes are not kept waiting", pick(1, 9, 50, 10), []got{{1, []int{9}}, {1, []int{50}}, {1, []int{10}}}},
		{"what lies on the way", append(append(pick(0, 3, 5), pick(1, 1, 2)...), pick(0, 4)...), []got{{0, []int{3, 4, 5}}, {1, []int{1, 2}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var all []got
			for _, b := range replay(layers, tc.order, Link{}) {
				all = append(all, got{b.layer, b.run.spans})
			}
			if diff := cmp.Diff(tc.want, all); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzReplay: all is fetched, once, by runs that waste little.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{1, 2, 3, 200, 201, 7, 1})
	f.Add([]byte{9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 129, 128, 127})
	f.Fuzz(func(t *testing.T, data []byte) {
		layers := [][]Span{even(64, 3<<10), even(64, 200<<10), {}}
		for i := range int64(64) { // gaps of all lengths
			layers[2] = append(layers[2], Span{Addr: i, Len: 1, Off: i * i * 100, CLen: 90})
		}
		want := make(map[wanted]bool)
		var order []wanted
		for _, b := range data {
			w := wanted{int(b) % 3, int(b) / 3 % 64}
			want[w] = true
			order = append(order, w)
		}
		for _, b := range replay(layers, order, Link{}) {
			if b.run.n > maxRun && len(b.run.spans) > 1 {
				t.Errorf("a run of %d bytes", b.run.n)
			}
			for _, i := range b.run.spans {
				w := wanted{b.layer, i}
				if !want[w] {
					t.Errorf("%v is fetched twice or was not wanted", w)
				}
				delete(want, w)
			}
		}
		if len(want) > 0 {
			t.Errorf("not fetched: %v", want)
		}
	})
}
