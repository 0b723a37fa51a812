package remote

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	line "github.com/peelfs/peel/internal/link"
)

// farClient is a client whose registry r.example serves content at the far end
// of a line, for a bubble of synctest.
func farClient(t *testing.T, l *line.Link, content []byte, o Options) (b *Blob, stop func()) {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	s := &http.Server{Handler: l.Handler(h), ConnContext: line.ConnContext}
	c, end := optionWire(t, s, o)
	ref, d := blobRef(t, wired, content)
	return c.Open(ref, d), func() {
		end()
		synctest.Wait()
	}
}

// near reports whether got is within a quarter of want.
func near[T ~int64](got, want T) bool { return got >= want*3/4 && got <= want*5/4 }

func TestLinkEstimate(t *testing.T) {
	t.Parallel()
	content := noise(8 << 20)
	for _, tt := range []struct {
		name      string
		trip      time.Duration
		bandwidth int64 // bits a second
		size      int64 // of a range
		readers   int
		think     time.Duration // after each read of 32 KiB
		blind     bool          // the bandwidth cannot be seen
	}{
		{name: "far", trip: 40 * time.Millisecond, bandwidth: 100e6, size: 1 << 20, readers: 1},
		{name: "far, four readers", trip: 40 * time.Millisecond, bandwidth: 100e6, size: 1 << 20, readers: 4},
		{name: "far, short ranges", trip: 40 * time.Millisecond, bandwidth: 100e6, size: 96 << 10, readers: 4},
		{name: "far, consumers that take their time", trip: 40 * time.Millisecond, bandwidth: 100e6, size: 1 << 20, readers: 8, think: 2 * time.Millisecond},
		{name: "near", trip: time.Millisecond, bandwidth: 1e9, size: 1 << 20, readers: 2},
		{name: "slow", trip: 80 * time.Millisecond, bandwidth: 10e6, size: 256 << 10, readers: 1},
		{name: "consumer much slower than the line", trip: 40 * time.Millisecond, bandwidth: 1e9, size: 1 << 20, readers: 1, think: 20 * time.Millisecond, blind: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &line.Link{RoundTrip: tt.trip, Bandwidth: tt.bandwidth}
				b, stop := farClient(t, l, content, Options{})
				defer stop()
				if trip, bandwidth := b.Link(); trip != 0 || bandwidth != 0 {
					t.Errorf("known before anybody was asked: %v, %d", trip, bandwidth)
				}
				var wg sync.WaitGroup
				for i := range tt.readers {
					wg.Go(func() {
						for j := range int64(max(2, 8/tt.readers)) {
							consume(t, b, (j*int64(tt.readers)+int64(i))*tt.size%(8<<20-tt.size), tt.size, tt.think)
						}
					})
				}
				wg.Wait()
				// A round trip has the first of a body's pieces in it, which waits for
				// those of others.
				trip, bandwidth := b.Link()
				piece := time.Duration(16<<10*8*int64(time.Second)/tt.bandwidth) * time.Duration(tt.readers)
				if trip < tt.trip || trip > (tt.trip+piece)*5/4 {
					t.Errorf("round trip %v", trip)
				}
				if tt.blind != (bandwidth == 0) || !tt.blind && !near(bandwidth, tt.bandwidth/8) {
					t.Errorf("bandwidth %d", bandwidth)
				}
			})
		})
	}
}

// consume reads a range by pieces of 32 KiB and thinks after each.
func consume(t *testing.T, b *Blob, off, n int64, think time.Duration) {
	t.Helper()
	r, err := b.ReadRange(t.Context(), off, n)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	p := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, p); err != nil {
			return
		}
		if think > 0 {
			time.Sleep(think) //nolint:forbidigo // the clock of the bubble
		}
	}
}

// The same by the kernel's clock and sockets, as roughly as a loaded machine
// allows.
func TestLinkEstimateOnLoopback(t *testing.T) {
	t.Parallel()
	content := noise(2 << 20)
	l := &line.Link{RoundTrip: 40 * time.Millisecond, Bandwidth: 40e6}
	s := newUnstartedHost(t, func(w http.ResponseWriter, r *http.Request) {
		l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })).ServeHTTP(w, r)
	})
	s.Config.ConnContext = line.ConnContext
	s.Start()
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	var took []time.Duration
	for i := range int64(6) {
		start := time.Now()
		consume(t, b, i*100_000, 300_000, 0)
		took = append(took, time.Since(start))
	}
	slowest, fastest := slices.Max(took), slices.Min(took)
	trip, bandwidth := b.Link()
	if trip < 40*time.Millisecond || trip > slowest || bandwidth > 7_500_000 || float64(bandwidth) < 300_000/fastest.Seconds() {
		t.Errorf("%v, %d bytes/s, for reads of %v", trip, bandwidth, took)
	}
	all := c.Links()
	if len(all) != 1 || all[0].Host != s.addr() || all[0].Requests != 6 || all[0].Bandwidth != bandwidth || all[0].RoundTrip != trip {
		t.Errorf("links %+v", all)
	}
}

// A blob's link is that of the host that serves it, not of the registry that
// redirects there; blobs that nobody read yet are expected there, too.
func TestLinkOfRedirect(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	store := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		if rest(r, 30*time.Millisecond) {
			serveBlob(w, r, content)
		}
	})
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, store.URL+r.URL.Path, http.StatusFound)
	})
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	read, other := c.Open(ref, d), c.Open(ref, d)
	for range 4 {
		wantRange(t, read, content, 5, 100)
	}
	for _, b := range []*Blob{read, other} {
		if trip, _ := b.Link(); trip < 30*time.Millisecond {
			t.Errorf("round trip %v", trip)
		}
	}
}

func TestLinksBounded(t *testing.T) {
	t.Parallel()
	s := newLinks(1)
	first := s.of("0")
	for i := range maxLinks {
		s.of(fmt.Sprint(i))
	}
	if s.of("0") != first {
		t.Error("forgotten too early")
	}
	s.of("new")
	if len(s.byHost) != maxLinks || s.byHost["0"] != first || s.byHost["1"] != nil {
		t.Errorf("%d links", len(s.byHost))
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	var s trips
	if s.median() != 0 {
		t.Error("known without samples")
	}
	for i := range 100 {
		s.add(time.Duration(i) * time.Millisecond)
		if i%10 == 0 {
			s.add(time.Hour)
		}
	}
	if got := s.median(); got < 80*time.Millisecond || got > 90*time.Millisecond {
		t.Errorf("median of the last %d is %v", roundTrips, got)
	}
}

func BenchmarkFlow(b *testing.B) {
	f := &flow{}
	s := stream{flow: f}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		s.begin(now)
		now = now.Add(time.Millisecond)
		s.end(now, time.Millisecond, 32<<10)
	}
}
