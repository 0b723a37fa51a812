package tree

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/layer"
)

// pattern is a Data whose bytes tell layer and address; it refuses to be
// asked for none.
type pattern struct{}

func (pattern) ReadAt(ctx context.Context, layer int, p []byte, addr int64) (int, error) {
	if len(p) == 0 {
		return 0, errors.New("nothing was asked for")
	}
	for i := range p {
		p[i] = patternByte(layer, addr+int64(i))
	}
	return len(p), ctx.Err()
}

func patternByte(layer int, addr int64) byte { return byte(1 + (addr*7+int64(layer)*131)%251) }

// broken fails at addresses from its value on, after the bytes before.
type broken int64

var errBroken = errors.New("broken")

func (b broken) ReadAt(ctx context.Context, layer int, p []byte, addr int64) (int, error) {
	good := min(max(int64(b)-addr, 0), int64(len(p)))
	n, _ := pattern{}.ReadAt(ctx, layer, p[:good], addr)
	if good < int64(len(p)) {
		return n, errBroken
	}
	return n, nil
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	pieces := func(size int64, es ...layer.Extent) layer.Header {
		h := file("f", 0, size)
		h.Extents = append([]layer.Extent{}, es...)
		return h
	}
	for _, tc := range []struct {
		name string
		h    layer.Header
	}{
		{"empty", file("f", 0, 0)},
		{"one run", file("f", 1000, 77)},
		{"hole first", pieces(50, layer.Extent{Off: 20, Addr: 500, Len: 30})},
		{"hole last", pieces(50, layer.Extent{Off: 0, Addr: 500, Len: 30})},
		{"hole between", pieces(90, layer.Extent{Off: 0, Addr: 500, Len: 30}, layer.Extent{Off: 60, Addr: 100, Len: 30})},
		{"holes everywhere", pieces(90, layer.Extent{Off: 5, Addr: 9, Len: 1}, layer.Extent{Off: 6, Addr: 500, Len: 1}, layer.Extent{Off: 60, Addr: 100, Len: 29})},
		{"extents of no length", pieces(90, layer.Extent{Off: 5}, layer.Extent{Off: 5, Addr: 7, Len: 10}, layer.Extent{Off: 15}, layer.Extent{Off: 90})},
		{"all hole", pieces(40)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := mergeAll(t, []layer.Header{}, []layer.Header{tc.h})
			row := tr.mustWalk("f")
			want := make([]byte, tc.h.Size)
			for _, e := range tr.Data(row, nil) {
				for i := range e.Len {
					want[e.Off+i] = patternByte(1, e.Addr+i)
				}
			}
			for off := int64(0); off <= tc.h.Size+2; off++ {
				for n := range tc.h.Size + 3 - off {
					p := make([]byte, n)
					for i := range p {
						p[i] = 0xff
					}
					got, err := tr.ReadFile(t.Context(), pattern{}, row, p, off)
					if d := cmp.Diff(want[min(off, tc.h.Size):min(off+n, tc.h.Size)], p[:got]); d != "" || err != nil {
						t.Fatalf("[%d, +%d): %v\n%s", off, n, err, d)
					}
				}
			}
		})
	}
}

func TestReadFileErrors(t *testing.T) {
	t.Parallel()
	h := file("f", 0, 100)
	h.Extents = []layer.Extent{{Off: 10, Addr: 0, Len: 20}, {Off: 40, Addr: 50, Len: 20}}
	tr := mergeAll(t, []layer.Header{h, dir("d", 0o755)})
	p := make([]byte, 100)
	n, err := tr.ReadFile(t.Context(), broken(55), tr.mustWalk("f"), p, 0)
	if n != 45 || !errors.Is(err, errBroken) {
		t.Errorf("%d bytes, %v; want the 45 before the break", n, err)
	}
	if _, err := tr.ReadFile(t.Context(), pattern{}, tr.mustWalk("d"), p, 0); !errors.Is(err, errInvalid) {
		t.Errorf("directory: %v", err)
	}
	if _, err := tr.ReadFile(t.Context(), pattern{}, tr.mustWalk("f"), p, -1); !errors.Is(err, errInvalid) {
		t.Errorf("offset below 0: %v", err)
	}
}

func TestReadFileAllocatesNothing(t *testing.T) {
	tr := everything(t)
	ctx, p := t.Context(), make([]byte, 4096)
	for _, path := range []string{"a", "sparse"} {
		row := tr.mustWalk(path)
		extents := make([]layer.Extent, 0, 4)
		n := testing.AllocsPerRun(100, func() {
			if _, err := tr.ReadFile(ctx, pattern{}, row, p, 1); err != nil {
				t.Error(err)
			}
			tr.Data(row, extents)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}
