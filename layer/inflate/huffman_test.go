package inflate

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"testing"
)

// randomCode returns the lengths of a complete code of some of n symbols, all of
// them at most maxBits, mostly.
func randomCode(r *rand.Rand, n int) []uint8 {
	lens := make([]uint8, n)
	leaves := []uint8{0}
	deep := r.IntN(3) == 0
	for used := 1 + r.IntN(n); len(leaves) < used; {
		i := r.IntN(len(leaves))
		if deep {
			i = len(leaves) - 1
		}
		if leaves[i] == maxBits {
			if deep = false; leaves[0] == maxBits {
				break
			}
			continue
		}
		leaves[i]++
		leaves = append(leaves, leaves[i])
	}
	for i, sym := range r.Perm(n)[:len(leaves)] {
		lens[sym] = leaves[i]
	}
	return lens
}

// Dynamic blocks of random codes, some of them incomplete, over-subscribed or
// empty, with random bits behind, are read as compress/flate reads them.
func TestRandomCodes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 3))
	var good, bad, output int
	for i := range 1500 {
		lit, dist := randomCode(r, 257+r.IntN(30)), randomCode(r, 1+r.IntN(30))
		switch r.IntN(8) {
		case 0:
			lit[r.IntN(len(lit))] = uint8(r.IntN(16))
		case 1:
			dist[r.IntN(len(dist))] = uint8(r.IntN(16))
		case 2:
			clear(dist)
			dist[r.IntN(len(dist))] = uint8(r.IntN(3))
		case 3:
			clear(lit)
			lit[endBlock] = uint8(r.IntN(3))
		}
		w := new(bitWriter).bits(0b101, 3).bits(uint64(len(lit)-257), 5).bits(uint64(len(dist)-1), 5).bits(15, 4)
		for _, sym := range lensOrder {
			w.bits(map[bool]uint64{true: 4}[sym < 16], 3) // codes of four bits, no repetition
		}
		for _, n := range append(lit, dist...) {
			w.bits(uint64(reverse(uint16(n), 4)), 4)
		}
		for range 500 {
			w.bits(r.Uint64()>>24, 40)
		}

		src := bytes.NewReader(w.bytes())
		want, stdErr := io.ReadAll(flate.NewReader(src))
		blob := member(w.out[:len(w.out)-src.Len()], want)
		got, err := readAll(NewReader(bytes.NewReader(blob)), 10000)
		switch {
		case stdErr == nil && (err != nil || !bytes.Equal(got, want)):
			t.Fatalf("code %d: %d bytes, %v; want %d", i, len(got), err, len(want))
		case stdErr != nil && (err == nil || !bytes.HasPrefix(got, want)):
			t.Fatalf("code %d: %d bytes, %v; want %d, %v", i, len(got), err, len(want), stdErr)
		case err == nil:
			good++
		default:
			bad++
		}
		output += len(got)
	}
	t.Logf("%d accepted, %d refused, %d bytes", good, bad, output)
	if good < 100 || bad < 100 || output < 100000 {
		t.Error("these codes test too little")
	}
}
