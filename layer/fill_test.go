package layer

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/priority"
)

func TestFill(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		for _, tc := range []struct {
			name  string
			first int64 // bytes read before
			whole bool  // the source knows no ranges
			most  int64 // requests, and one more if something was read before
		}{
			{"nothing", 0, false, 1},
			{"something", 200_000, false, 2},
			{"nothing, without ranges", 0, true, 2},
		} {
			t.Run(form+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, mixed...)
				s, w := newShelf(b.x), &wire{whole: tc.whole}
				l := b.open(t, w, s, exactly())
				if _, err := l.ReadAt(t.Context(), make([]byte, tc.first), 100_000); err != nil {
					t.Fatal(err)
				}
				done := new(atomic.Int64)
				for range 2 { // the second time it costs nothing
					if err := l.Fill(t.Context(), done); err != nil {
						t.Fatal(err)
					}
					if n := w.requests.Load(); n > tc.most+min(tc.first, 1) {
						t.Errorf("%d requests", n)
					}
				}
				if l.Present() != b.x.Info.AddrSize || done.Load() != int64(len(b.blob)) {
					t.Errorf("%d bytes present of %d, progress %d of %d", l.Present(), b.x.Info.AddrSize, done.Load(), len(b.blob))
				}
				for i, sp := range b.x.Spans {
					if !bytes.Equal(s.data[i], b.space[sp.Addr:][:sp.Len]) {
						t.Errorf("span %d is stored wrong", i)
					}
				}
			})
		}
	}
}

// Every span counts for something, all together for the blob.
func TestFillProgress(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		b := bottle(t, form, mixed...)
		sum := int64(0)
		for i := range b.x.Spans {
			n := b.x.part(i)
			if n <= 0 {
				t.Errorf("%s: span %d counts %d bytes", form, i, n)
			}
			sum += n
		}
		if sum != int64(len(b.blob)) {
			t.Errorf("%s: %d bytes of %d", form, sum, len(b.blob))
		}
	}
}

// peak is a wire that knows how many of its bodies were open at once.
type peak struct {
	*wire
	most atomic.Int64
}

func (p *peak) watch(ctx context.Context) {
	for ctx.Err() == nil {
		p.most.Store(max(p.most.Load(), p.open.Load()))
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
}

func TestFillAsksForLongRangesFewAtOnce(t *testing.T) {
	t.Parallel()
	b := zeroes(5*fillRun, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{pace: time.Millisecond, piece: 1 << 20}
		p := &peak{wire: w}
		ctx, stop := context.WithCancel(t.Context())
		go p.watch(ctx)
		l := b.open(t, w, newCounter(b.x), Options{})
		if err := l.Fill(t.Context(), nil); err != nil {
			t.Error(err)
		}
		stop()
		if w.requests.Load() != 5 || p.most.Load() != fillRequests {
			t.Errorf("%d requests, %d at once", w.requests.Load(), p.most.Load())
		}
	})
}

// A Fill that nobody waits for begins no request while somebody waits for another
// one, and has one at a time.
func TestFillInTheBackgroundKeepsOut(t *testing.T) {
	t.Parallel()
	b := zeroes(32<<20, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		o := exactly()
		busy := b.open(t, &wire{delay: time.Second}, newCounter(b.x), o)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := busy.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		w := &wire{pace: time.Millisecond, piece: 1 << 20}
		p := &peak{wire: w}
		ctx, stop := context.WithCancel(t.Context())
		go p.watch(ctx)
		l := b.open(t, w, newCounter(b.x), o)
		wg.Go(func() {
			if err := l.Fill(priority.With(t.Context(), priority.Fill), nil); err != nil {
				t.Error(err)
			}
		})
		<-time.After(time.Second + quiet - 1)
		if n := w.requests.Load(); n != 0 {
			t.Errorf("%d requests while somebody else waits", n)
		}
		wg.Wait()
		stop()
		if p.most.Load() != 1 || w.requests.Load() != 8 {
			t.Errorf("%d requests, %d at once", w.requests.Load(), p.most.Load())
		}
	})
}

// counter is a Store that forgets the bytes.
type counter struct {
	inPlace
	put atomic.Int64
}

func newCounter(x *Index) *counter {
	return &counter{inPlace: inPlace{at: bytes.NewReader(nil), confirmed: make([]atomic.Uint64, len(x.Spans)/64+1)}}
}

func (c *counter) Put(span int, addr int64, data []byte) error {
	c.put.Add(int64(len(data)))
	return c.inPlace.Put(span, addr, data)
}

func TestFillTakesBoundedMemory(t *testing.T) {
	t.Parallel()
	b := zeroes(3*fillRun, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s := &jam{newShelf(b.x), make(chan struct{})}
		l := b.open(t, w, s, Options{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.Fill(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if got := 2 * w.bytes.Load(); got > defaultMemory || got < defaultMemory/2 {
			t.Errorf("%d bytes on their way, want at most %d", got, defaultMemory)
		}
		close(s.open)
		wg.Wait()
	})
}

// What a Fill fetches is not fetched by readers, nor the other way round.
func TestReadersShareTheWorkOfFill(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			synctest.Test(t, func(t *testing.T) {
				w := &wire{delay: 40 * time.Millisecond, pace: time.Millisecond, piece: 8 << 10}
				l := b.open(t, w, newShelf(b.x), exactly())
				var wg sync.WaitGroup
				read := func(addr int64) {
					p := make([]byte, 1000)
					if _, err := l.ReadAt(t.Context(), p, addr); err != nil || !bytes.Equal(p, b.space[addr:][:1000]) {
						t.Errorf("at %d: wrong bytes or error %v", addr, err)
					}
				}
				wg.Go(func() { read(500_000) })
				synctest.Wait()
				wg.Go(func() {
					if err := l.Fill(t.Context(), nil); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				for addr := int64(0); addr < 900_000; addr += 100_000 {
					wg.Go(func() { read(addr) })
				}
				wg.Wait()
				if n := w.requests.Load(); n > 3 {
					t.Errorf("%d requests", n)
				}
				slack := int64(64)
				if form == "zTOC" {
					slack = b.x.Spans[0].CLen * 4 // of spans that lead in
				}
				if n := w.bytes.Load(); n > int64(len(b.blob))+slack {
					t.Errorf("%d bytes of %d", n, len(b.blob))
				}
			})
		})
	}
}

func TestFillEnds(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left on device")
	for _, form := range ways() {
		for _, tc := range []struct {
			name string
			rig  func(w *wire, s *shelf)
			is   error
		}{
			{"the source fails", func(w *wire, _ *shelf) { w.fail = func(int64) error { return errWire } }, errWire},
			{"the store is full", func(_ *wire, s *shelf) { s.putErr = full }, full},
			{"bytes are wrong", func(w *wire, _ *shelf) { w.flip = func(int64) bool { return true } }, ErrVerify},
		} {
			t.Run(form+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, mixed...)
				s, w := newShelf(b.x), &wire{}
				tc.rig(w, s)
				done := new(atomic.Int64)
				err := b.open(t, w, s, Options{}).Fill(t.Context(), done)
				if !errors.Is(err, tc.is) || done.Load() >= int64(len(b.blob)) {
					t.Errorf("%v, want %v; progress %d", err, tc.is, done.Load())
				}
			})
		}
	}
}

func TestFillIsCancelled(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			synctest.Test(t, func(t *testing.T) {
				l := b.open(t, &wire{delay: time.Hour}, newShelf(b.x), Options{})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				if err := l.Fill(ctx, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		})
	}
}

// What a reboot put in doubt is looked at before anything is fetched.
func TestFillRechecks(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"tar", "gzip", "resident", "estargz"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			a := &attic{shelf: newShelf(b.x), old: make([][]byte, len(b.x.Spans))}
			for i, sp := range b.x.Spans {
				a.old[i] = b.space[sp.Addr:][:sp.Len]
			}
			w := &wire{fail: func(int64) error { return errdefs.ErrUnavailable }}
			l := b.open(t, w, a, Options{})
			if err := l.Fill(t.Context(), nil); err != nil || l.Present() != b.x.Info.AddrSize {
				t.Errorf("%v, %d bytes present", err, l.Present())
			}
		})
	}
}
