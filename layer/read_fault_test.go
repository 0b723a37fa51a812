package layer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/flat"
)

func TestWrongBytesAreFetchedAgainAndNeverServed(t *testing.T) {
	t.Parallel()
	always := func(int64) bool { return true }
	once := func(request int64) bool { return request == 1 }
	long := func(request int64) bool { return request <= maxAgain }
	for _, form := range forms() {
		for _, tc := range []struct {
			name     string
			flip     func(int64) bool
			err      error
			requests int64
		}{
			{"a bad proxy once", once, nil, 2},
			{"a bad proxy for long", long, nil, 1 + maxAgain},
			{"a bad registry", always, ErrVerify, 1 + maxAgain},
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
				if !errors.Is(err, tc.err) || w.requests.Load() != tc.requests {
					t.Fatalf("error %v, want %v; %d requests, want %d", err, tc.err, w.requests.Load(), tc.requests)
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

// A body that ends early is taken up where it ended, and what came before has
// been served.
func TestBodyThatEndsEarlyIsTakenUp(t *testing.T) {
	t.Parallel()
	const spans = 4
	for _, tc := range []struct {
		name     string
		cut      func(int64) bool
		present  int
		requests int64
	}{
		{"once", func(request int64) bool { return request == 1 }, spans, 2},
		{"always", func(int64) bool { return true }, spans - 1, 2 + maxAgain}, // a body has half of what is asked for
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, "estargz", spans*64<<10)
			w := &wire{cut: tc.cut}
			l := b.open(t, w, newShelf(b.x), Options{})
			_, err := l.ReadAt(t.Context(), make([]byte, spans*64<<10), 0)
			last := b.x.Spans[tc.present-1]
			if (err == nil) != (tc.present == spans) || err != nil && !errdefs.IsUnavailable(err) {
				t.Errorf("error %v", err)
			}
			if got := l.Present(); got != last.Addr+last.Len || w.requests.Load() != tc.requests {
				t.Errorf("%d bytes present after %d requests, want %d after %d", got, w.requests.Load(), last.Addr+last.Len, tc.requests)
			}
		})
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
	for _, tc := range []struct {
		name     string
		form     string
		bad      int   // span whose bytes did not survive; -1 for none
		lost     int64 // spans that did not survive
		requests int64
	}{
		{"all survived", "tar", -1, 0, 0},
		{"one is fetched again", "tar", 1, 1, 1},
		{"all of a gzip layer survived", "gzip", -1, 0, 0},
		{"one of a gzip layer is fetched again", "gzip", 1, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, tc.form, 5<<18)
			a := &attic{shelf: newShelf(b.x), old: make([][]byte, len(b.x.Spans))}
			for i, sp := range b.x.Spans {
				a.old[i] = bytes.Clone(b.space[sp.Addr:][:sp.Len])
				if i == tc.bad {
					a.old[i][77] ^= 1
				}
			}
			w := &wire{}
			l := b.open(t, w, a, Options{})
			p := make([]byte, len(b.space))
			if _, err := l.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, b.space) {
				t.Errorf("wrong bytes or error %v", err)
			}
			if want := int64(len(b.x.Spans)) - tc.lost; a.confirmed.Load() != want || w.requests.Load() != tc.requests {
				t.Errorf("%d confirmed, want %d; %d requests, want %d", a.confirmed.Load(), want, w.requests.Load(), tc.requests)
			}
		})
	}
}

// late is a shelf whose first answers to Read are out of date.
type late struct {
	*shelf
	misses atomic.Int64
}

func (s *late) Read(p []byte, addr int64, first, n int) (bool, error) {
	if s.misses.Add(-1) >= 0 {
		return false, nil
	}
	return s.shelf.Read(p, addr, first, n)
}

// A reader that looks into the store just before another's fetch has ended
// must not fetch again.
func TestSpanStoredMeanwhileIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"estargz", "gzip"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, 1000)
			s := &late{shelf: newShelf(b.x)}
			w := &wire{}
			l := b.open(t, w, s, Options{})
			for range 2 {
				p := make([]byte, 1000)
				if _, err := l.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, b.space[:1000]) {
					t.Errorf("wrong bytes or error %v", err)
				}
				s.misses.Store(2)
			}
			if n := w.requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
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
// the store stays within defaultMemory.
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
		if got := 2 * w.bytes.Load(); got > defaultMemory || got < defaultMemory/2 {
			t.Errorf("%d bytes on their way, want at most %d", got, defaultMemory)
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

// A source that has used up a long patience is not waited for again at once:
// the kernel asks a second time for what it could not read ahead.
func TestOutageIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 1000)
	synctest.Test(t, func(t *testing.T) {
		down := true
		w := &wire{fail: func(int64) error {
			if !down {
				return nil
			}
			<-time.After(30 * time.Second)
			return errdefs.ErrUnavailable
		}}
		l := b.open(t, w, newShelf(b.x), Options{})
		read := func() (time.Duration, error) {
			start := time.Now()
			_, err := l.ReadAt(t.Context(), make([]byte, 1000), 0)
			return time.Since(start), err
		}
		for i, want := range []time.Duration{30 * time.Second, 0, 0} {
			if took, err := read(); took != want || !errdefs.IsUnavailable(err) {
				t.Errorf("read %d: %v after %v, want it after %v", i, err, took, want)
			}
		}
		<-time.After(outageFor)
		down = false
		if _, err := read(); err != nil {
			t.Errorf("when the source is back: %v", err)
		}
	})
}
