package layer

import (
	"slices"
	"testing"
)

// alone is a chart of spans that are files of their own.
func alone(spans []Span) chart {
	m := chart{spans: spans, places: make([]place, len(spans)), room: 1 << 40}
	for i := range m.places {
		m.places[i].file = uint32(i)
	}
	return m
}

// whole is a chart of spans that are one file.
func whole(spans []Span) chart {
	return chart{spans: spans, places: make([]place, len(spans)), room: 1 << 40}
}

func TestCourseInSequence(t *testing.T) {
	t.Parallel()
	const size, total = 64 << 10, 32 << 20
	var c courses
	asked, requests := int64(0), 0
	m := whole(even(total/size, size))
	for addr := int64(0); addr < total; addr += size {
		ahead := c.advance(nil, m, addr, size)
		if len(ahead) == 0 {
			continue
		}
		requests++
		if from := m.spans[ahead[0]].Addr; from != max(asked, addr+size) {
			t.Fatalf("at %d asked from %d, want %d", addr, from, max(asked, addr+size))
		}
		asked = m.spans[ahead[len(ahead)-1]].Addr + size
		if ahead, read := asked-addr-size, addr+size; ahead > min(2*read, maxAhead) {
			t.Fatalf("at %d asked for %d bytes ahead", addr, ahead)
		}
	}
	if asked != total || requests > 16 {
		t.Errorf("asked up to %d of %d in %d portions, want at most 16", asked, total, requests)
	}
}

func TestCourseAcrossFiles(t *testing.T) {
	t.Parallel()
	const size = 4 << 10
	spans := even(1000, size)
	for i := range spans { // as in a tar
		spans[i].Addr += int64(i) * 512
	}
	var c courses
	m, asked, waited := alone(spans), make([]bool, len(spans)), 0
	for i := range spans {
		if !asked[i] {
			waited++
		}
		for _, j := range c.advance(nil, m, spans[i].Addr, size) {
			asked[j] = true
			if j > 3*i+3 {
				t.Fatalf("after %d files expects the one of number %d", i+1, j)
			}
		}
	}
	if waited > 3 {
		t.Errorf("waited for %d files", waited)
	}
}

func TestCourseByStrides(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		start, steps int
		stride, run  int // spans
	}{
		{"every other", 0, 100, 2, 1},
		{"far apart", 10, 30, 30, 1},
		{"backwards", 900, 100, -1, 1},
		{"runs", 0, 50, 20, 8},
		{"runs, backwards", 800, 50, -16, 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			const size = 64 << 10
			m := whole(even(1000, size))
			var c courses
			asked := make([]bool, 1000)
			waited, wasted := 0, 0
			for s := range tc.steps {
				for i := tc.start + s*tc.stride; i < tc.start+s*tc.stride+tc.run; i++ {
					if !asked[i] {
						waited++
					}
					for _, j := range c.advance(nil, m, int64(i)*size, size) {
						asked[j] = true
					}
					asked[i] = false
				}
			}
			for _, a := range asked {
				if a {
					wasted++
				}
			}
			if waited > 4*tc.run || wasted > maxForeseen*tc.run+2*tc.run {
				t.Errorf("waited for %d of %d spans, %d not needed", waited, tc.steps*tc.run, wasted)
			}
		})
	}
}

func TestCoursesInterleaved(t *testing.T) {
	t.Parallel()
	m := whole(even(2048, 64<<10))
	var c courses
	var hits [maxCourses]int
	for step := range int64(16) {
		for reader := range int64(maxCourses) {
			at := reader*(reader+1)/2*13 + reader*17 + step // not one stride from another
			if len(c.advance(nil, m, at<<16, 1<<16)) > 0 {
				hits[reader]++
			}
		}
	}
	for reader, n := range hits {
		if n == 0 {
			t.Errorf("reader %d of %d was not recognized", reader, maxCourses)
		}
	}
}

func TestCourseAtRandomAsksNothing(t *testing.T) {
	t.Parallel()
	m := whole(even(1024, 64<<10))
	var c courses
	for i := range int64(1000) {
		at := i * i * 7919 % 1000 // not i alone, which goes by strides
		if ahead := c.advance(nil, m, at<<16+5<<10, 4<<10); len(ahead) > 3 {
			t.Fatalf("read %d: asked for %d spans", i, len(ahead))
		}
	}
}

func TestCourseWithinItsRoom(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	m := whole(even(500, size))
	m.room = 3 * size
	var c courses
	var asked []int
	for addr := int64(0); addr < 500*size; addr += size {
		ahead := c.advance(nil, m, addr, size)
		if len(ahead) > 3 {
			t.Fatalf("%d spans where 3 have room", len(ahead))
		}
		asked = append(asked, ahead...)
	}
	slices.Sort(asked)
	if len(slices.Compact(asked)) < 490 {
		t.Errorf("asked for %d of 500 spans", len(asked))
	}
}

func TestCourseLeavesLongSpansToTheirReaders(t *testing.T) {
	t.Parallel()
	m := whole(even(4, 4<<20))
	var c courses
	for addr := int64(0); addr < 4<<20; addr += 4 << 10 {
		ahead := c.advance(nil, m, addr, 4<<10)
		if len(ahead) == 0 {
			continue
		}
		if read := addr + 4<<10; !slices.Equal(ahead, []int{1}) || 3*read < 8<<20 {
			t.Errorf("after %d bytes asked for spans %v", read, ahead)
		}
		return
	}
	t.Error("the next span was not asked for before the reader came to it")
}
