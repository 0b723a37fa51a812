package layer

import "testing"

// even returns n spans of size addresses each.
func even(n int, size int64) []Span {
	spans := make([]Span, n)
	for i := range spans {
		spans[i] = Span{Addr: int64(i) * size, Len: size, Off: int64(i) * size, CLen: size}
	}
	return spans
}

func TestAdvanceSequential(t *testing.T) {
	t.Parallel()
	const size, total = 64 << 10, 32 << 20
	spans := even(total/size, size)
	var s streams
	asked, requests := int64(0), 0
	for addr := int64(0); addr < total; addr += size {
		first, n := s.advance(spans, addr, size)
		if n == 0 {
			continue
		}
		requests++
		if from := spans[first].Addr; from != max(asked, addr+size) {
			t.Fatalf("at %d asked from %d, want %d", addr, from, max(asked, addr+size))
		}
		asked = spans[first+n-1].Addr + size
		if ahead, read := asked-addr-size, addr+size; ahead > min(2*read, maxAhead) {
			t.Fatalf("at %d asked for %d bytes ahead", addr, ahead)
		}
	}
	if asked != total || requests > 16 {
		t.Errorf("asked up to %d of %d in %d portions, want at most 16", asked, total, requests)
	}
}

func TestAdvanceInterleaved(t *testing.T) {
	t.Parallel()
	spans := even(1024, 64<<10)
	var s streams
	var hits [maxStreams]int
	for step := range int64(16) {
		for reader := range int64(maxStreams) {
			if _, n := s.advance(spans, reader<<22+step<<16, 1<<16); n > 0 {
				hits[reader]++
			}
		}
	}
	for reader, n := range hits {
		if n == 0 {
			t.Errorf("reader %d of %d was not recognized", reader, maxStreams)
		}
	}
}

func TestAdvanceRandomAsksNothing(t *testing.T) {
	t.Parallel()
	spans := even(1024, 64<<10)
	var s streams
	for i := range int64(1000) {
		if _, n := s.advance(spans, i*7919%1000<<16, 4<<10); n > 0 {
			t.Fatalf("read %d: asked for %d spans", i, n)
		}
	}
}

func TestAdvanceLeavesLongSpansToTheirReaders(t *testing.T) {
	t.Parallel()
	spans := even(4, 4<<20)
	var s streams
	for addr := int64(0); addr < 4<<20; addr += 4 << 10 {
		first, n := s.advance(spans, addr, 4<<10)
		if n == 0 {
			continue
		}
		if read := addr + 4<<10; first != 1 || n != 1 || 3*read < 8<<20 {
			t.Errorf("after %d bytes asked for spans [%d, +%d)", read, first, n)
		}
		return
	}
	t.Error("the next span was not asked for before the reader came to it")
}
