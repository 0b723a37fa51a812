package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/flight"
	"github.com/peelfs/peel/internal/priority"
)

// shuffled returns the order of every step-th span of a layer, shuffled.
func shuffled(l *Layer, step int) []Wanted {
	var order []Wanted
	for i := 0; i < len(l.x.Spans); i += step {
		order = append(order, Wanted{l, i})
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// What is fetched ahead comes in few requests, is not fetched again, and counts
// as unused until it is read.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			w := &wire{}
			o := exactly()
			l := b.open(t, w, newShelf(b.x), o)
			var order []Wanted
			for i := range b.x.Spans {
				order = append(order, Wanted{l, i})
			}
			if _, err := l.ReadAt(t.Context(), make([]byte, 10), b.x.Info.AddrSize/2); err != nil {
				t.Fatal(err)
			}
			if err := Prefetch(t.Context(), o.Traffic, append(order, order...)); err != nil {
				t.Fatal(err)
			}
			if n, most := w.requests.Load(), int64(4); n > most {
				t.Errorf("%d requests, want at most %d", n, most)
			}
			before, s := w.requests.Load(), l.Stats()
			if form == "resident" {
				if s.Fetched != 0 {
					t.Errorf("%d bytes fetched of a layer that is read whole", s.Fetched)
				}
				return
			}
			if l.Present() != b.x.Info.AddrSize {
				t.Errorf("%d bytes present of %d", l.Present(), b.x.Info.AddrSize)
			}
			if want := s.Fetched + s.Guessed; s.Unused != want || len(b.x.Spans) > 1 && s.Fetched == 0 {
				t.Errorf("%d bytes unused of %d guessed and %d prefetched", s.Unused, s.Guessed, s.Fetched)
			}
			p := make([]byte, b.x.Info.AddrSize)
			if _, err := l.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, b.space) {
				t.Errorf("wrong bytes or error %v", err)
			}
			if s = l.Stats(); s.Unused != 0 || w.requests.Load() != before {
				t.Errorf("%d bytes unused after all was read; %d requests more", s.Unused, w.requests.Load()-before)
			}
		})
	}
}

// Reads of what was to be fetched ahead are not guessed from.
func TestPrefetchKnowsBetter(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 2<<20)
	w := &wire{}
	o := Options{Traffic: NewTraffic(TrafficOptions{})}
	l := b.open(t, w, newShelf(b.x), o)
	order := shuffled(l, 8)
	if err := Prefetch(t.Context(), o.Traffic, order); err != nil {
		t.Fatal(err)
	}
	before := w.bytes.Load()
	for _, one := range order {
		if _, err := l.ReadAt(t.Context(), make([]byte, 10), b.x.Spans[one.Span].Addr); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.Stats(); s.Unused != 0 || s.Guessed != 0 || w.bytes.Load() != before {
		t.Errorf("%d bytes guessed, %d unused, %d more on the wire", s.Guessed, s.Unused, w.bytes.Load()-before)
	}
}

// One layer's source fails, another layer has none but the whole blob, a third
// one is closed early: the others get theirs.
func TestPrefetchGoesOn(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 1<<20)
	tr := NewTraffic(TrafficOptions{})
	var said bytes.Buffer
	log := logrus.New()
	log.SetOutput(&said)
	o := Options{Traffic: tr, Log: logrus.NewEntry(log)}
	sick := b.open(t, &wire{fail: func(int64) error { return errWire }}, newShelf(b.x), o)
	whole := b.open(t, &wire{whole: true}, newShelf(b.x), o)
	well := b.open(t, &wire{}, newShelf(b.x), o)
	var order []Wanted
	for i := range b.x.Spans[:len(b.x.Spans)-1] {
		order = append(order, Wanted{sick, i}, Wanted{whole, i}, Wanted{well, i}, Wanted{well, 1 << 20})
	}
	if err := Prefetch(t.Context(), tr, order); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(said.String(), "cannot fetch ahead"); n != 1 {
		t.Errorf("said %d times: %s", n, said.String())
	}
	last := b.x.Spans[len(b.x.Spans)-1].Len
	if sick.Present() != 0 || well.Present() != b.x.Info.AddrSize-last {
		t.Errorf("%d bytes of the sick layer, %d of the other", sick.Present(), well.Present())
	}
	if err := well.Close(); err != nil {
		t.Error(err)
	}
	if err := Prefetch(t.Context(), tr, []Wanted{{well, len(b.x.Spans) - 1}}); !errors.Is(err, flight.ErrClosed) {
		t.Errorf("of a closed layer: %v", err)
	}
}

func TestPrefetchIsCancelled(t *testing.T) {
	t.Parallel()
	b := zeroes(48<<20, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		tr := NewTraffic(TrafficOptions{})
		w := &wire{delay: time.Hour}
		l := b.open(t, w, newShelf(b.x), Options{Traffic: tr})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := Prefetch(ctx, tr, shuffled(l, 1))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if n := w.requests.Load(); n > 2*prefetchRanges {
			t.Errorf("%d requests at once", n)
		}
		<-time.After(flight.Grace + 1)
		synctest.Wait()
		if n := tr.memory.taken(); n != 0 {
			t.Errorf("%d bytes still taken", n)
		}
	})
}

// patient is a Source whose bodies of lower classes wait until they are raised.
type patient struct {
	*wire
	lower chan struct{} // gets a value for each
}

func (s *patient) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	changed := priority.Changed(ctx)
	if priority.Of(ctx) != priority.Demand {
		s.lower <- struct{}{}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return s.wire.ReadRange(ctx, off, n)
}

// What is under way at a lower class becomes urgent when a reader comes to wait
// for it, and nothing else does.
func TestReadersRaiseWhatTheyWaitFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		begin func(ctx context.Context, l *Layer) error
	}{
		{"prefetch", func(ctx context.Context, l *Layer) error {
			return Prefetch(ctx, l.traffic, []Wanted{{l, 3}, {l, 40}})
		}},
		{"fill", func(ctx context.Context, l *Layer) error {
			return l.Fill(priority.With(ctx, priority.Fill), nil)
		}},
		{"guess", func(ctx context.Context, l *Layer) error {
			l.early(ctx, []int{3, 40})
			return nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := zeroes(48<<20, 1<<20)
			synctest.Test(t, func(t *testing.T) {
				w := &patient{&wire{blob: b.blob}, make(chan struct{}, 10)}
				l := New(b.x, w, newShelf(b.x), exactly())
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					if err := tc.begin(ctx, l); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				})
				synctest.Wait()
				asked := len(w.lower)
				if _, err := l.ReadAt(t.Context(), make([]byte, 10), 3<<20); err != nil || w.requests.Load() != 1 {
					t.Errorf("%d of %d requests went out: %v", w.requests.Load(), asked, err)
				}
				cancel()
				wg.Wait()
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
