package link

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// exchange has l answer one request with n bytes and returns how long it took.
func exchange(ctx context.Context, l *Link, n int) time.Duration {
	begin := time.Now()
	h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, n)) }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	return time.Since(begin)
}

func TestPace(t *testing.T) {
	t.Parallel()
	const rtt = 40 * time.Millisecond
	for _, tc := range []struct {
		name  string
		link  *Link
		conn  bool // requests come on a connection known to be one
		sizes []int
		want  []time.Duration
	}{
		{"free", &Link{}, false, []int{1 << 20}, []time.Duration{0}},
		{"delay only", &Link{RoundTrip: rtt}, false, []int{1 << 20, 0}, []time.Duration{rtt, rtt}},
		{"handshake once", &Link{RoundTrip: rtt}, true, []int{0, 0}, []time.Duration{2 * rtt, rtt}},
		{"bandwidth only", &Link{Bandwidth: 8 << 20}, false, []int{1 << 20, 1 << 19}, []time.Duration{time.Second, time.Second / 2}},
		{"both", &Link{RoundTrip: rtt, Bandwidth: 8 << 20}, false, []int{1 << 20}, []time.Duration{time.Second + rtt}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tc.conn {
					ctx = ConnContext(ctx, nil)
				}
				var got []time.Duration
				for _, n := range tc.sizes {
					got = append(got, exchange(ctx, tc.link, n))
				}
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("durations (-want +got):\n%s", d)
				}
			})
		})
	}
}

func TestResponsesShareTheLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &Link{Bandwidth: 8 << 20}
		before := l.Stats()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if d := exchange(t.Context(), l, 1<<20); d < 3900*time.Millisecond || d > 4*time.Second {
					t.Errorf("one of four parallel MiB at 1 MiB/s took %v", d)
				}
			})
		}
		wg.Wait()
		if d := cmp.Diff(Stats{Requests: 4, Bytes: 4 << 20}, l.Stats().Since(before)); d != "" {
			t.Errorf("stats (-want +got):\n%s", d)
		}
	})
}

func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &Link{Bandwidth: 8 << 10}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		var werr error
		h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, werr = w.Write(make([]byte, 1<<20)) }))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		if !errors.Is(werr, context.DeadlineExceeded) {
			t.Errorf("write ended with %v", werr)
		}
		if got := l.Stats().Bytes; got != 48<<10 {
			t.Errorf("%d bytes went out in 50 s at 1 KiB/s", got)
		}
	})
}
