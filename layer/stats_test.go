package layer

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/internal/priority"
)

// Whatever is done to a layer, what was fetched is what is stored and what crossed
// the wire, and every read is counted once.
func TestStatsAddUp(t *testing.T) {
	t.Parallel()
	for _, form := range ways() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, mixed...)
			w := &wire{flip: func(request int64) bool { return request == 2 }}
			l := b.open(t, w, newShelf(b.x), Options{})
			var reads, size int64
			var noted Note
			read := func(addr, n int64) {
				p := make([]byte, n)
				if _, err := l.ReadAt(WithNote(t.Context(), &noted), p, addr); err != nil || !bytes.Equal(p, b.space[addr:][:n]) {
					t.Fatalf("wrong bytes or error %v", err)
				}
				reads++
				size += n
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			half := b.x.Info.AddrSize / 2
			for range 30 {
				read(rnd.Int64N(half-5000), 1+rnd.Int64N(5000))
			}
			if err := Prefetch(t.Context(), l.traffic, []Wanted{{l, len(b.x.Spans) / 2}}); err != nil {
				t.Fatal(err)
			}
			if err := l.Fill(priority.With(t.Context(), priority.Fill), nil); err != nil {
				t.Fatal(err)
			}
			read(0, 2*half)
			l.flights.Close()

			s := l.Stats()
			var all, compressed, touched int64
			for _, c := range s.Reads {
				reads -= c.Count
				all += c.Bytes
			}
			for i := range b.x.Spans {
				compressed += b.x.cost(i)
				if b.x.Spans[i].Addr < 2*half {
					touched += b.x.cost(i)
				}
			}
			if reads != 0 || all != size || s.Reads[FromNetwork].Bytes != noted.Fetched {
				t.Errorf("%d reads and %d bytes of %d are missing; %d bytes noted of %d", reads, size-all, size, noted.Fetched, s.Reads[FromNetwork].Bytes)
			}
			if fetched := s.Demanded + s.Guessed + s.Fetched + s.Filled; fetched != compressed {
				t.Errorf("%d compressed bytes fetched of %d", fetched, compressed)
			}
			if s.Requests != w.requests.Load() || s.Touched != touched || s.Unused != 0 {
				t.Errorf("%+v; %d requests, %d bytes touched", s, w.requests.Load(), touched)
			}
			// A wrong bit between spans is nobody's.
			if s.Again > 0 && w.faults.Load() == 0 {
				t.Errorf("%d spans asked for again", s.Again)
			}
		})
	}
}

func TestWrongSpansAreCounted(t *testing.T) {
	t.Parallel()
	for _, form := range forms() {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, form, 60_000)
			w := &wire{flip: func(request int64) bool { return request == 1 }}
			l := b.open(t, w, newShelf(b.x), exactly())
			at := b.x.Spans[0].Addr + b.x.Spans[0].Len/2
			if _, err := l.ReadAt(t.Context(), make([]byte, 1), at); err != nil {
				t.Fatal(err)
			}
			if s := l.Stats(); s.Again != 1 || s.Requests != 2 {
				t.Errorf("%d spans asked for again, %d requests; want 1, 2", s.Again, s.Requests)
			}
		})
	}
}

func TestNoteAndSlowestReads(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 1<<20)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{delay: time.Second}
		l := b.open(t, w, newShelf(b.x), exactly())
		start := time.Now()
		for i := range b.x.Spans[:12] {
			w.delay += time.Second
			var n Note
			sp := &b.x.Spans[i]
			if _, err := l.ReadAt(WithNote(t.Context(), &n), make([]byte, sp.Len), sp.Addr); err != nil || n != (Note{Fetched: sp.Len}) {
				t.Errorf("span %d: %+v, %v", i, n, err)
			}
		}
		var n Note
		end := b.x.Spans[12].Addr + 10
		if _, err := l.ReadAt(WithNote(t.Context(), &n), make([]byte, end), 0); err != nil || n != (Note{Fetched: 10}) {
			t.Errorf("mostly stored: %+v, %v", n, err)
		}
		n = Note{}
		if _, err := l.ReadAt(WithNote(t.Context(), &n), make([]byte, end), 0); err != nil || n != (Note{}) {
			t.Errorf("stored: %+v, %v", n, err)
		}
		s := l.Stats()
		if len(s.Slowest) != maxSlowest || s.Reads[FromNetwork].Count != 13 || s.Reads[FromNetwork].Waited != time.Since(start) {
			t.Errorf("after %v: %+v", time.Since(start), s)
		}
		want := SlowRead{At: start.Add(77 * time.Second), Took: 13 * time.Second, Addr: b.x.Spans[11].Addr, Size: b.x.Spans[11].Len, Origin: FromNetwork}
		if diff := cmp.Diff(want, s.Slowest[0]); diff != "" || s.Slowest[1].Addr != 0 {
			t.Errorf("the slowest read (-want, +got):\n%s", diff)
		}
	})
}

// First touches are told in order, each span once, be it read by many.
func TestTouches(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", 1<<20)
	synctest.Test(t, func(t *testing.T) {
		l := b.open(t, &wire{delay: time.Second}, newShelf(b.x), Options{})
		start := time.Now()
		var want []Touch
		for _, i := range []int{7, 2, 7, 9, 2} {
			at := time.Since(start)
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					if _, err := l.ReadAt(t.Context(), make([]byte, 10), b.x.Spans[i].Addr); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if !slices.ContainsFunc(want, func(o Touch) bool { return o.Span == i }) {
				want = append(want, Touch{i, start.Add(at)})
			}
		}
		if diff := cmp.Diff(want, l.Touches()); diff != "" {
			t.Errorf("touches (-want, +got):\n%s", diff)
		}
	})
}
