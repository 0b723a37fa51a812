package layer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer/inflate"
)

// bottleZTOC is a gzip layer with a zTOC.
func bottleZTOC(t testing.TB, sizes ...int) *bottled {
	t.Helper()
	raw := filledTar(t, sizes)
	p := gzipped(t, raw)
	x, err := FromZTOC(encoded(t, zTOC(t, p, 50_000)), descriptor(p, mediaGzip, nil), someClaim())
	if err != nil {
		t.Fatal(err)
	}
	return &bottled{x, p, raw[:x.Info.AddrSize]}
}

// Readers of a layer with a zTOC get right bytes or an error, like all others.
func TestReadAtOfZTOC(t *testing.T) {
	t.Parallel()
	b := bottleZTOC(t, mixed...)
	w := &wire{flip: nth(1, 5), cut: nth(3, 7), piece: 30_000}
	l := b.open(t, w, newShelf(b.x), Options{})
	var wg sync.WaitGroup
	for reader := range uint64(4) {
		wg.Go(func() { readRandomly(t, l, b.space, rand.New(rand.NewPCG(reader, 1))) })
	}
	wg.Wait()
	if w.faults.Load() == 0 {
		t.Error("no fault was injected")
	}
}

// A wrong window in a zTOC never makes a wrong byte, whichever span is read
// first.
func TestWrongWindowIsNotBelieved(t *testing.T) {
	t.Parallel()
	good := bottleZTOC(t, 300_000)
	if len(good.x.Spans) < 5 {
		t.Fatalf("%d spans", len(good.x.Spans))
	}
	packed := new(inflate.Packer).Pack(nil, bytes.Repeat([]byte("x"), inflate.WindowSize))
	refused := 0
	for i := 1; i < len(good.x.Spans); i++ {
		for first := range good.x.Spans {
			b := *good
			b.x = copyIndex(t, good.x)
			b.x.Checkpoints[i].Window = flat.Range{First: uint32(len(b.x.Windows)), Count: uint32(len(packed))}
			b.x.Windows = append(b.x.Windows, packed...)
			l := b.open(t, new(wire), newShelf(b.x), Options{})
			for k := range b.x.Spans {
				s := b.x.Spans[(first+k)%len(b.x.Spans)]
				p := make([]byte, s.Len)
				_, err := l.ReadAt(t.Context(), p, s.Addr)
				switch {
				case err == nil && !bytes.Equal(p, b.space[s.Addr:][:s.Len]):
					t.Errorf("window %d is wrong, span at %d: wrong bytes", i, s.Addr)
				case err != nil && !errors.Is(err, ErrVerify):
					t.Error(err)
				case err != nil:
					refused++
				}
			}
		}
	}
	if refused < len(good.x.Spans) {
		t.Errorf("only %d reads were refused", refused)
	}
}
