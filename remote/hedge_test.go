package remote

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peelfs/peel/internal/priority"
)

// trip is how long hosts of these tests take to answer.
const trip = 20 * time.Millisecond

// stalling serves content after a round trip, and every so manieth range of 100
// bytes or more only after a second more.
func stalling(content []byte, every int64) http.HandlerFunc {
	var asked atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if !rest(r, trip) {
			return
		}
		if asked.Add(1)%every == 0 && !rest(r, time.Second) {
			return
		}
		serveBlob(w, r, content)
	}
}

func TestHedge(t *testing.T) {
	t.Parallel()
	const reads = 2000
	content := noise(10_000)
	for _, tt := range []struct {
		name  string
		class priority.Class
		every int64
		p99   time.Duration // at most
		least int64         // hedges
	}{
		{"one in a hundred stalls", priority.Demand, 100, 150 * time.Millisecond, 15},
		{"one in five stalls", priority.Demand, 5, 2 * time.Second, 35},
		{"prefetch", priority.Prefetch, 100, 2 * time.Second, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, stop := wireClient(t, stalling(content, tt.every))
				defer stop()
				ref, d := blobRef(t, wired, content)
				b := c.Open(ref, d)
				ctx := as(t, tt.class)
				var took []time.Duration
				for i := range int64(reads) {
					start := time.Now()
					if _, err := readRange(ctx, b, i, 100+i); err != nil {
						t.Fatal(err)
					}
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				st := c.Stats()
				if got := took[reads*99/100+1]; got > tt.p99 {
					t.Errorf("99th percentile %v", got)
				}
				if st.Hedges < tt.least || st.Hedges > reads/requestsPerHedge || tt.least == 0 && st.Hedges > 0 || st.Requests != reads+st.Hedges {
					t.Errorf("%d requests for %d reads, %d of them hedges", st.Requests, reads, st.Hedges)
				}
				if st.HedgesWon > st.Hedges || tt.every == 100 && st.HedgesWon < st.Hedges-1 {
					t.Errorf("%d of %d hedges won", st.HedgesWon, st.Hedges)
				}
				if st.Retries != 0 || len(c.limiter.hosts) != 0 {
					t.Errorf("%d retries, %d lanes in use", st.Retries, len(c.limiter.hosts))
				}
				if l := c.Links(); l[0].Hedges != st.Hedges || l[0].Requests != st.Requests {
					t.Errorf("links %+v", l)
				}
			})
		})
	}
}

// warm reads until the round trip is known and hedges may be sent.
func warm(t *testing.T, b *Blob, content []byte) {
	t.Helper()
	for range maxSaved * requestsPerHedge {
		wantRange(t, b, content, 1, 10)
	}
}

// mirrored is a client of a registry with a mirror, for a bubble of synctest.
func mirrored(t *testing.T, mirror, origin http.HandlerFunc) (c *Client, stop func()) {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "mirror.example" {
			mirror(w, r)
			return
		}
		origin(w, r)
	})
	toml := fmt.Sprintf("server = \"http://%s\"\n[host.\"http://mirror.example\"]\n", wired)
	c, end := optionWire(t, &http.Server{Handler: h}, Options{HostsDir: hostsDir(t, wired, toml)})
	return c, func() {
		end()
		synctest.Wait()
	}
}

// The next host is asked when a mirror is late; the bytes of its answer are
// taken, and those who read later begin with the mirror again.
func TestHedgeAtNextHost(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	for _, tt := range []struct {
		name  string
		late  time.Duration // the mirror, once
		next  http.HandlerFunc
		took  time.Duration
		won   int64
		asked int64 // the mirror
	}{
		{"mirror stalls", time.Minute, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) }, lateTimes * trip, 1, 102},
		{"next host has not got it", 300 * time.Millisecond, http.NotFound, 300*time.Millisecond + trip, 0, 102},
		{"next host is later", 300 * time.Millisecond, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 300*time.Millisecond + trip, 0, 102},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var late atomic.Bool
				var mirror, origin atomic.Int64
				c, stop := mirrored(t, func(w http.ResponseWriter, r *http.Request) {
					mirror.Add(1)
					if rest(r, trip) && (!late.CompareAndSwap(true, false) || rest(r, tt.late)) {
						serveBlob(w, r, content)
					}
				}, func(w http.ResponseWriter, r *http.Request) {
					origin.Add(1)
					tt.next(w, r)
				})
				defer stop()
				ref, d := blobRef(t, wired, content)
				b := c.Open(ref, d)
				warm(t, b, content)
				late.Store(true)
				start := time.Now()
				wantRange(t, b, content, 5, 50_000)
				if d := time.Since(start); d != tt.took {
					t.Errorf("took %v", d)
				}
				wantRange(t, b, content, 5, 50_000)
				if m, o := mirror.Load(), origin.Load(); m != tt.asked || o != 1 {
					t.Errorf("%d and %d requests", m, o)
				}
				if st := c.Stats(); st.Hedges != 1 || st.HedgesWon != tt.won || st.Retries != 0 || len(c.limiter.hosts) != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// The second request of HTTP/2 goes by a connection of its own, and to where
// the blob is known to be.
func TestHedgeConnection(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	for _, major := range []int{1, 2} {
		var stall atomic.Bool
		s := newUnstartedHost(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path != "/store":
				http.Redirect(w, r, "/store", http.StatusTemporaryRedirect)
			case stall.CompareAndSwap(true, false):
				<-r.Context().Done()
			default:
				serveBlob(w, r, content)
			}
		})
		s.EnableHTTP2 = major == 2
		s.StartTLS()
		c := newClient(t, Options{HostsDir: hostsDir(t, s.addr(), fmt.Sprintf("server = \"https://%s\"\nskip_verify = true\n", s.addr()))})
		ref, d := blobRef(t, s.addr(), content)
		b := c.Open(ref, d)
		warm(t, b, content)
		for range maxSaved * requestsPerHedge { // a loaded machine may have spent it
			b.served.Load().allowed.earn()
		}
		before := len(s.requests())
		stall.Store(true)
		wantRange(t, b, content, 5, 50_000)
		last := s.requests()[before:]
		if len(last) != 2 || last[0].RemoteAddr == last[1].RemoteAddr || last[1].URL.Path != "/store" || last[1].ProtoMajor != major {
			t.Errorf("HTTP/%d: %d requests", major, len(last))
		}
	}
}

// Bodies of second requests are as good as others: what dies is asked for
// again from where it was.
func TestHedgeDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(100_000)
		var stage atomic.Int64
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case stage.CompareAndSwap(1, 2):
				<-r.Context().Done()
			case stage.CompareAndSwap(2, 3):
				serveBlob(&cut{w, 30_000}, r, content)
			default:
				serveBlob(w, r, content)
			}
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		warm(t, b, content)
		stage.Store(1)
		wantRange(t, b, content, 5, 90_000)
		if st := c.Stats(); st.HedgesWon != 1 || st.Retries != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// Who goes away while two requests are under way leaves nothing behind.
func TestHedgeCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(100_000)
		var stall atomic.Bool
		var asked atomic.Int64
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if stall.Load() {
				asked.Add(1)
				<-r.Context().Done()
				return
			}
			serveBlob(w, r, content)
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		warm(t, b, content)
		stall.Store(true)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, context.Canceled)
		defer cancel()
		if _, err := readRange(ctx, b, 5, 100); err == nil {
			t.Error("bytes from nowhere")
		}
		if n := asked.Load(); n != 2 || len(c.limiter.hosts) != 0 {
			t.Errorf("%d requests, %d lanes in use", n, len(c.limiter.hosts))
		}
	})
}

// Many readers at a host whose answers are late at random all get their bytes.
func TestHedgeManyReaders(t *testing.T) {
	t.Parallel()
	content := noise(200_000)
	var asked atomic.Int64
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		// As late as second requests are, about.
		if asked.Add(1)%40 == 0 && !rest(r, lateLeast+time.Duration(asked.Load()%7)*time.Millisecond) {
			return
		}
		serveBlob(w, r, content)
	})
	c := newClient(t, Options{RequestRate: 100_000})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			for j := range int64(100) {
				off := i*1000 + j
				got, err := readRange(t.Context(), b, off, 20_000)
				if err != nil || string(got) != string(content[off:off+20_000]) {
					t.Errorf("wrong bytes, %v", err)
				}
			}
		})
	}
	wg.Wait()
	st := c.Stats()
	t.Logf("%d hedges, %d won", st.Hedges, st.HedgesWon)
	if st.Hedges == 0 || st.Hedges > st.Requests/requestsPerHedge || st.Retries != 0 {
		t.Errorf("%+v", st)
	}
}
