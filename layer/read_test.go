package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

// mixed are file sizes around the chunk size of 64 KiB.
var mixed = []int{1, 0, 5, 64 << 10, 64<<10 + 1, 1000, 300 << 10, 3, 20_000, 128 << 10, 40_000, 500 << 10, 17}

// nth holds for request i and every n-th after it.
func nth(i, n int64) func(int64) bool { return func(request int64) bool { return request%n == i } }

// Readers of all forms, at random places and at once, over a wire that fails,
// cuts and flips, get an error that says so or the bytes of an eager unpack.
func TestReadAtEqualsEagerBytes(t *testing.T) {
	t.Parallel()
	for _, form := range forms() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			w := &wire{flip: nth(1, 5), cut: nth(3, 7), piece: 30_000, fail: func(request int64) error {
				if request%11 == 4 {
					return errWire
				}
				return nil
			}}
			s := newShelf(b.x)
			l := b.open(t, w, s, Options{})
			var wg sync.WaitGroup
			for reader := range uint64(8) {
				wg.Go(func() { readRandomly(t, l, b.space, rand.New(rand.NewPCG(reader, 1))) })
			}
			wg.Wait()
			if w.faults.Load() == 0 {
				t.Error("no fault was injected")
			}
			for i, sp := range b.x.Spans {
				if s.data[i] != nil && !bytes.Equal(s.data[i], b.space[sp.Addr:][:sp.Len]) {
					t.Errorf("span %d is stored wrong", i)
				}
			}
		})
	}
}

func readRandomly(t *testing.T, l *Layer, space []byte, rnd *rand.Rand) {
	p := make([]byte, 200<<10)
	for range 60 {
		addr := rnd.IntN(len(space))
		q := p[:1+rnd.IntN(min(len(p), len(space)-addr))]
		clear(q)
		n, err := l.ReadAt(t.Context(), q, int64(addr))
		switch {
		case err == nil && (n != len(q) || !bytes.Equal(q, space[addr:][:n])):
			t.Errorf("[%d, +%d): wrong bytes", addr, len(q))
		case err != nil && (n != 0 || !errors.Is(err, errWire) && !errors.Is(err, ErrVerify) && !errdefs.IsUnavailable(err)):
			t.Errorf("[%d, +%d): %d bytes, %v", addr, len(q), n, err)
		}
	}
}

func TestReadAtBounds(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 10)
	l := b.open(t, &wire{}, newShelf(b.x), Options{})
	end := b.x.Info.AddrSize
	for _, tc := range []struct {
		name string
		addr int64
		n    int
		err  error
	}{
		{"nothing", 0, 0, nil},
		{"all", 0, int(end), nil},
		{"last byte", end - 1, 1, nil},
		{"beyond the end", end - 1, 2, io.ErrUnexpectedEOF},
		{"at the end", end, 1, io.ErrUnexpectedEOF},
		{"before the start", -1, 1, io.ErrUnexpectedEOF},
		{"far away", 1<<63 - 1, 1, io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := l.ReadAt(t.Context(), make([]byte, tc.n), tc.addr)
			if !errors.Is(err, tc.err) || err == nil && n != tc.n {
				t.Errorf("%d bytes, error %v, want %v", n, err, tc.err)
			}
		})
	}
}

func TestManyReadersOfAColdSpanFetchItOnce(t *testing.T) {
	t.Parallel()
	for _, form := range forms() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, 64<<10, 64<<10, 64<<10)
			synctest.Test(t, func(t *testing.T) {
				w := &wire{delay: 40 * time.Millisecond}
				l := b.open(t, w, newShelf(b.x), exactly())
				var wg sync.WaitGroup
				for range 200 {
					wg.Go(func() {
						p := make([]byte, 1000)
						if _, err := l.ReadAt(t.Context(), p, 70_000); err != nil || !bytes.Equal(p, b.space[70_000:71_000]) {
							t.Errorf("wrong bytes or error %v", err)
						}
					})
				}
				wg.Wait()
				if n := w.requests.Load(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
				first, _ := spansOf(b.x.Spans, 70_000, 1000)
				if most := b.x.Spans[first].CLen; b.x.seekable() && w.bytes.Load() != most {
					t.Errorf("%d bytes on the wire, want %d", w.bytes.Load(), most)
				}
			})
		})
	}
}

// An interrupted reader comes back to the fetch it left: 300 ms of fetching get
// done in 100 ms of patience at a time.
func TestInterruptedReaderMakesProgress(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 1000)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{delay: 250 * time.Millisecond}
		l := b.open(t, w, newShelf(b.x), Options{})
		tries := 0
		for err := context.DeadlineExceeded; errors.Is(err, context.DeadlineExceeded) && tries < 10; tries++ {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err = l.ReadAt(ctx, make([]byte, 1000), 0)
			cancel()
		}
		if tries != 3 || w.requests.Load() != 1 {
			t.Errorf("%d tries, %d requests; want 3, 1", tries, w.requests.Load())
		}
	})
}

func TestSequentialReaderIsReadAheadOf(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 4<<20)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{delay: 40 * time.Millisecond}
		l := b.open(t, w, newShelf(b.x), Options{})
		p := make([]byte, 64<<10)
		start := time.Now()
		for addr := int64(0); addr < 4<<20; addr += int64(len(p)) {
			if _, err := l.ReadAt(t.Context(), p, addr); err != nil || !bytes.Equal(p, b.space[addr:][:len(p)]) {
				t.Fatalf("at %d: wrong bytes or error %v", addr, err)
			}
		}
		spans := int64(len(b.x.Spans))
		if n := w.requests.Load(); n > spans/4 {
			t.Errorf("%d requests for %d spans, want at most %d", n, spans, spans/4)
		}
		if rounds := time.Since(start) / w.delay; rounds > 10 {
			t.Errorf("the reader waited for %d round trips", rounds)
		}
	})
}

func TestRandomReaderFetchesNoMoreThanItTouches(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 2<<20)
	w := &wire{}
	l := b.open(t, w, newShelf(b.x), exactly())
	var want int64
	for i := 0; i < len(b.x.Spans); i += 7 {
		want += b.x.Spans[i].CLen
		if _, err := l.ReadAt(t.Context(), make([]byte, 100), b.x.Spans[i].Addr+5); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.bytes.Load(); got != want {
		t.Errorf("%d bytes on the wire, want %d", got, want)
	}
}

// The first span of a long run is there as soon as its bytes are.
func TestReaderDoesNotWaitForTheRestOfTheRun(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 512<<10)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{pace: time.Second, piece: 8 << 10}
		l := b.open(t, w, newShelf(b.x), Options{})
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.ReadAt(t.Context(), make([]byte, 512<<10), 0); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, err := l.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
			t.Error(err)
		}
		first := time.Since(start)
		wg.Wait()
		if all := time.Since(start); first > all/4 || w.requests.Load() != 1 {
			t.Errorf("first span after %v of %v, %d requests", first, all, w.requests.Load())
		}
	})
}

func TestResidentLayerIsFilledByOnePass(t *testing.T) {
	t.Parallel()
	b := bottle(t, "gzip", 5<<19)
	reside(b.x)
	w := &wire{}
	l := b.open(t, w, newShelf(b.x), Options{})
	for _, addr := range []int64{3 << 19, 0, 1 << 20} {
		p := make([]byte, 1<<20)
		if _, err := l.ReadAt(t.Context(), p, addr); err != nil || !bytes.Equal(p, b.space[addr:][:1<<20]) {
			t.Errorf("at %d: wrong bytes or error %v", addr, err)
		}
	}
	if n := w.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestWarmReadAllocatesNothing(t *testing.T) {
	b := bottle(t, "estargz", 2<<20)
	l := b.open(t, &wire{}, newShelf(b.x), Options{})
	p := make([]byte, 2<<20)
	if _, err := l.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	p = p[:128<<10]
	addr := int64(0)
	for _, tc := range []struct {
		name string
		step int64
	}{{"sequential", 128 << 10}, {"scattered", 777_777}} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := t.Context()
			n := testing.AllocsPerRun(200, func() {
				if _, err := l.ReadAt(ctx, p, addr); err != nil {
					t.Fatal(err)
				}
				addr = (addr + tc.step) % (3 << 19)
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
