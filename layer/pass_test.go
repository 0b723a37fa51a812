package layer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/sirupsen/logrus"
)

// A source without byte ranges is read once from its beginning, whoever reads
// what, and says so once.
func TestReadWithoutRanges(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				log := logrus.New()
				log.SetOutput(&said)
				w := &wire{whole: true, delay: 40 * time.Millisecond}
				o := exactly()
				o.Log = logrus.NewEntry(log)
				l := b.open(t, w, newShelf(b.x), o)
				var wg sync.WaitGroup
				for reader := range uint64(8) {
					wg.Go(func() { readRandomly(t, l, b.space, rand.New(rand.NewPCG(reader, 1))) })
				}
				wg.Wait()
				if n := w.requests.Load() - w.refused.Load(); n != 1 {
					t.Errorf("%d passes", n)
				}
				// Each reader may ask once before it is known.
				alone := form == "resident" || len(b.x.Spans) == 1 // which needs no range
				if n := w.refused.Load(); n > 8*4 || (n == 0) != alone {
					t.Errorf("%d requests of ranges", n)
				}
				if n := strings.Count(said.String(), "no byte ranges"); n != int(min(w.refused.Load(), 1)) {
					t.Errorf("said %d times: %s", n, said.String())
				}
				p := make([]byte, len(b.space))
				if _, err := l.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, b.space) {
					t.Errorf("wrong bytes or error %v", err)
				}
			})
		})
	}
}

// After a while ranges are asked for again.
func TestWithoutRangesIsRemembered(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 3<<20)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{whole: true}
		s := newShelf(b.x)
		l := b.open(t, w, s, exactly())
		forget := func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			clear(s.data)
		}
		for i, want := range []struct{ refused, passes int64 }{{1, 1}, {1, 2}, {2, 3}} {
			if i == 2 {
				<-time.After(rangelessFor)
			}
			if _, err := l.ReadAt(t.Context(), make([]byte, 10), 5000); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := w.refused.Load(); got != want.refused || w.requests.Load()-got != want.passes {
				t.Errorf("read %d: %d refused, %d passes; want %+v", i, got, w.requests.Load()-got, want)
			}
			forget()
		}
	})
}

// What a pass finds wrong is read again; the rest is not waited for.
func TestPassesGetOverFaults(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		for _, tc := range []struct {
			name   string
			rig    func(*wire)
			passes int64
			err    error
		}{
			{"wrong bytes once", func(w *wire) { w.flip = nthOfWhole(w, 1) }, 2, nil},
			{"wrong bytes for ever", func(w *wire) { w.flip = func(int64) bool { return true } }, 0, ErrVerify},
			{"a body that ends early", func(w *wire) { w.cut = nthOfWhole(w, 1) }, 2, nil},
			{"bodies that end early", func(w *wire) { w.cut = func(int64) bool { return true } }, 0, errdefs.ErrUnavailable},
		} {
			t.Run(form+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, mixed...)
				synctest.Test(t, func(t *testing.T) {
					w := &wire{whole: true}
					tc.rig(w)
					l := b.open(t, w, newShelf(b.x), Options{})
					p := make([]byte, len(b.space))
					_, err := l.ReadAt(t.Context(), p, 0)
					if !errors.Is(err, tc.err) || err == nil && !bytes.Equal(p, b.space) {
						t.Errorf("error %v, want %v, or wrong bytes", err, tc.err)
					}
					if n := w.requests.Load() - w.refused.Load(); tc.passes != 0 && n != tc.passes || n > maxAgain+2 {
						t.Errorf("%d passes", n)
					}
					if tc.err != nil && (l.Present() == 0 && len(b.x.Spans) > 4 || l.Present() == b.x.Info.AddrSize) {
						t.Errorf("%d bytes present of %d", l.Present(), b.x.Info.AddrSize)
					}
				})
			})
		}
	}
}

// nthOfWhole holds for the n-th request that was not refused.
func nthOfWhole(w *wire, n int64) func(int64) bool {
	return func(request int64) bool { return request-w.refused.Load() == n }
}

func TestReadIndexWithoutRanges(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", mixed...)
	d := descriptor(b.blob, mediaGzip, map[string]string{estargz.TOCJSONDigestAnnotation: b.x.Claim().String()})
	_, err := ReadIndex(t.Context(), &wire{blob: b.blob, whole: true}, d)
	if !errdefs.IsNotImplemented(err) || errors.Is(err, ErrPlain) || !errors.Is(err, errNoRanges) {
		t.Errorf("got %v", err)
	}
}
