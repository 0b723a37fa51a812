package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/peelfs/peel/internal/flat"
	"github.com/sirupsen/logrus"
)

// mixed are file sizes around the chunk size of 64 KiB.
var mixed = []int{1, 0, 5, 64 << 10, 64<<10 + 1, 1000, 700 << 10, 3, 20_000, 128 << 10, 40_000, 1 << 20, 17}

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
				l := b.open(t, w, newShelf(b.x), Options{})
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

func TestWrongBytesAreFetchedOnceMoreAndNeverServed(t *testing.T) {
	t.Parallel()
	always := func(int64) bool { return true }
	once := func(request int64) bool { return request == 1 }
	for _, form := range forms() {
		for _, tc := range []struct {
			name string
			flip func(int64) bool
			err  error
		}{
			{"a bad proxy once", once, nil},
			{"a bad registry", always, ErrVerify},
		} {
			t.Run(form+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, 60_000)
				w := &wire{flip: tc.flip}
				s := newShelf(b.x)
				l := b.open(t, w, s, Options{})
				p := make([]byte, 60_000)
				at := files(b.x)["/f0000"].Addr
				n, err := l.ReadAt(t.Context(), p, at)
				if !errors.Is(err, tc.err) || w.requests.Load() != 2 {
					t.Fatalf("error %v, want %v; %d requests, want 2", err, tc.err, w.requests.Load())
				}
				if err == nil {
					if !bytes.Equal(p, b.space[at:][:n]) {
						t.Error("wrong bytes")
					}
					return
				}
				checkVerifyError(t, b.x, err)
				if n != 0 || s.puts != 0 || !bytes.Equal(p, make([]byte, len(p))) {
					t.Errorf("%d bytes returned, %d spans stored", n, s.puts)
				}
			})
		}
	}
}

// checkVerifyError checks that err names the layer, the span and both digests,
// the one of what came only if it could be unpacked.
func checkVerifyError(t *testing.T, x *Index, err error) {
	t.Helper()
	text := err.Error()
	if !strings.HasPrefix(text, "layer "+x.blob()+": ") || strings.Count(text, "layer ") != 1 {
		t.Errorf("%q does not name the layer, once", text)
	}
	if strings.Count(text, "span ") != 1 {
		t.Errorf("%q does not name the span, once", text)
	}
	if strings.Count(text, "sha256:") < 2 {
		t.Errorf("%q does not name the digest", text)
	}
}

func TestBrokenWire(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		rig  func(*wire)
		is   error
	}{
		{"no connection", func(w *wire) { w.fail = func(int64) error { return errWire } }, errWire},
		{"short body", func(w *wire) { w.cut = func(int64) bool { return true } }, errdefs.ErrUnavailable},
	} {
		for _, form := range []string{"estargz", "gzip"} {
			t.Run(tc.name+"/"+form, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, 60_000)
				w := &wire{}
				tc.rig(w)
				l := b.open(t, w, newShelf(b.x), Options{})
				n, err := l.ReadAt(t.Context(), make([]byte, 60_000), 0)
				if n != 0 || !errors.Is(err, tc.is) || errors.Is(err, io.EOF) {
					t.Errorf("%d bytes, error %v, want %v", n, err, tc.is)
				}
			})
		}
	}
}

// When a body dies, the spans that came before have been served.
func TestSpansBeforeADeadBodyAreServed(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 256<<10)
	s := newShelf(b.x)
	l := b.open(t, &wire{cut: func(int64) bool { return true }}, s, Options{})
	_, err := l.ReadAt(t.Context(), make([]byte, 256<<10), 0)
	last := b.x.Spans[3]
	var want int64
	for _, sp := range b.x.Spans[:4] {
		if sp.Off+sp.CLen <= (b.x.Spans[0].Off+last.Off+last.CLen)/2 {
			want += sp.Len
		}
	}
	if !errdefs.IsUnavailable(err) || l.Present() != want || want == 0 {
		t.Errorf("error %v, %d bytes present; want unavailable, %d", err, l.Present(), want)
	}
}

func TestStoreThatFailsIsReadAround(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left on device")
	for _, tc := range []struct {
		name            string
		putErr, readErr error
	}{
		{"full disk", full, nil},
		{"unreadable disk", nil, full},
	} {
		for _, form := range []string{"estargz", "zstd"} {
			t.Run(tc.name+"/"+form, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, mixed...)
				s := newShelf(b.x)
				s.putErr, s.readErr = tc.putErr, tc.readErr
				var said bytes.Buffer
				log := logrus.New()
				log.SetOutput(&said)
				l := b.open(t, &wire{}, s, Options{Log: logrus.NewEntry(log)})
				for range 2 {
					p := make([]byte, len(b.space))
					if _, err := l.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, b.space) {
						t.Errorf("wrong bytes or error %v", err)
					}
				}
				if n := strings.Count(said.String(), full.Error()); n != 1 {
					t.Errorf("said %d times: %s", n, said.String())
				}
			})
		}
	}
}

func TestSpansFromBeforeTheBootAreRechecked(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 64<<10, 64<<10, 64<<10)
	a := &attic{shelf: newShelf(b.x), old: make([][]byte, len(b.x.Spans))}
	for i, sp := range b.x.Spans {
		a.old[i] = bytes.Clone(b.space[sp.Addr:][:sp.Len])
	}
	a.old[1][77] ^= 1
	w := &wire{}
	l := b.open(t, w, a, Options{})
	p := make([]byte, len(b.space))
	if _, err := l.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, b.space) {
		t.Errorf("wrong bytes or error %v", err)
	}
	want := int64(len(b.x.Spans) - 1)
	if a.confirmed.Load() != want || w.requests.Load() != 1 || w.bytes.Load() != b.x.Spans[1].CLen {
		t.Errorf("%d confirmed, want %d; %d requests of %d bytes, want one of %d",
			a.confirmed.Load(), want, w.requests.Load(), w.bytes.Load(), b.x.Spans[1].CLen)
	}
}

func TestSequentialReaderIsReadAheadOf(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 8<<20)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{delay: 40 * time.Millisecond}
		l := b.open(t, w, newShelf(b.x), Options{})
		p := make([]byte, 64<<10)
		start := time.Now()
		for addr := int64(0); addr < 8<<20; addr += int64(len(p)) {
			if _, err := l.ReadAt(t.Context(), p, addr); err != nil || !bytes.Equal(p, b.space[addr:][:len(p)]) {
				t.Fatalf("at %d: wrong bytes or error %v", addr, err)
			}
		}
		spans := int64(len(b.x.Spans))
		if n := w.requests.Load(); n > spans/8 {
			t.Errorf("%d requests for %d spans, want at most %d", n, spans, spans/8)
		}
		if rounds := time.Since(start) / w.delay; rounds > 10 {
			t.Errorf("the reader waited for %d round trips", rounds)
		}
	})
}

func TestRandomReaderFetchesNoMoreThanItTouches(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 4<<20)
	w := &wire{}
	l := b.open(t, w, newShelf(b.x), Options{})
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

func TestStreamedLayerIsFilledByOnePass(t *testing.T) {
	t.Parallel()
	b := bottle(t, "gzip", 5<<20)
	w := &wire{}
	l := b.open(t, w, newShelf(b.x), Options{})
	for _, addr := range []int64{4 << 20, 0, 3 << 20} {
		p := make([]byte, 1<<20)
		if _, err := l.ReadAt(t.Context(), p, addr); err != nil || !bytes.Equal(p, b.space[addr:][:1<<20]) {
			t.Errorf("at %d: wrong bytes or error %v", addr, err)
		}
	}
	if n := w.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestCloseEndsFetchesAndReaders(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 1000)
	synctest.Test(t, func(t *testing.T) {
		l := b.open(t, &wire{delay: time.Hour}, newShelf(b.x), Options{})
		failed := make(chan error)
		go func() {
			_, err := l.ReadAt(t.Context(), make([]byte, 10), 0)
			failed <- err
		}()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; !errors.Is(err, os.ErrClosed) {
			t.Errorf("reader got %v, want closed", err)
		}
		if _, err := l.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("later reader got %v, want closed", err)
		}
	})
}

// jam is a shelf that takes nothing until it is told to.
type jam struct {
	*shelf
	open chan struct{}
}

func (j *jam) Put(span int, addr int64, data []byte) error {
	<-j.open
	return j.shelf.Put(span, addr, data)
}

// However many readers ask at once, what has left the wire and not yet reached
// the store stays within maxMemory.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const readers, each = 24, 4 << 20
	b := zeroes(readers*each, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s := &jam{newShelf(b.x), make(chan struct{})}
		l := b.open(t, w, s, Options{})
		var wg sync.WaitGroup
		for i := range int64(readers) {
			wg.Go(func() {
				if _, err := l.ReadAt(t.Context(), make([]byte, each), i*each); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		// A span counts twice, as it is in the blob and as it is decoded.
		if got := 2 * w.bytes.Load(); got > maxMemory || got < maxMemory/2 {
			t.Errorf("%d bytes on their way, want at most %d", got, maxMemory)
		}
		close(s.open)
		wg.Wait()
	})
}

func TestSpanOfTooManyBytesIsRefused(t *testing.T) {
	t.Parallel()
	b := zeroes(1<<20, 1<<20)
	b.x.Spans[0].CLen = maxCLen + 1
	w := &wire{}
	l := b.open(t, w, newShelf(b.x), Options{})
	_, err := l.ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, ErrMalformed) || w.requests.Load() != 0 {
		t.Errorf("error %v, want %v; %d requests", err, ErrMalformed, w.requests.Load())
	}
}

// zeroes is an uncompressed layer of n zero bytes in spans of size bytes.
func zeroes(n, size int64) *bottled {
	b := &bottled{x: &Index{}, blob: make([]byte, n)}
	b.space = b.blob
	b.x.Info = Info{BlobSize: n, AddrSize: n, Format: FormatTar}
	sum := sha256.Sum256(b.blob[:size])
	for addr := int64(0); addr < n; addr += size {
		i := uint32(len(b.x.Chunks))
		b.x.Chunks = append(b.x.Chunks, Chunk{Addr: addr, Len: uint32(size), SHA256: sum})
		b.x.Spans = append(b.x.Spans, Span{Addr: addr, Len: size, Off: addr, CLen: size, Chunks: flat.Range{First: i, Count: 1}})
	}
	return b
}

func TestWarmReadAllocatesNothing(t *testing.T) {
	b := bottle(t, "estargz", 4<<20)
	l := b.open(t, &wire{}, newShelf(b.x), Options{})
	p := make([]byte, 4<<20)
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
				addr = (addr + tc.step) % (3 << 20)
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
