package remote

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// unlucky answers a tenth of all requests each with one of the faults, in an
// order that is the same in every run.
func unlucky(seed uint64, stall time.Duration, serve http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	g := rand.New(rand.NewPCG(seed, 0))
	var limited atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		dice := g.IntN(10)
		mu.Unlock()
		switch dice {
		case 0:
			w.WriteHeader(http.StatusInternalServerError)
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			if limited.Add(1) == 3 {
				w.Header().Set("Retry-After", "1")
			}
			w.WriteHeader(http.StatusTooManyRequests)
		case 3:
			panic(http.ErrAbortHandler)
		case 4:
			serve(&cut{w, 700}, r)
		case 5:
			serve(spoilt{w}, r)
		case 6:
			timer := time.NewTimer(stall)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			}
			serve(w, r)
		default:
			serve(w, r)
		}
	}
}

// spoilt changes a bit of everything that is written.
type spoilt struct{ http.ResponseWriter }

func (s spoilt) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	if len(q) > 0 {
		q[len(q)/2] ^= 4
	}
	return s.ResponseWriter.Write(q)
}

// With seven faults at a tenth each, all ranges arrive; those whose bytes were
// changed are asked for again by who verifies them, as layer does.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	const ranges, size = 300, 5000
	content := noise(ranges * size)
	for _, tt := range []struct {
		name  string
		major int
	}{{"HTTP/1.1", 1}, {"HTTP/2", 2}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newUnstartedHost(t, unlucky(1, 2*time.Second, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) }))
			o := Options{
				StateDir: t.TempDir(),
				Retry:    Retry{Base: time.Millisecond, Max: 4 * time.Millisecond, Progress: 100 * time.Millisecond},
			}
			if s.EnableHTTP2 = tt.major == 2; s.EnableHTTP2 {
				s.StartTLS()
				o.HostsDir = hostsDir(t, s.addr(), fmt.Sprintf("server = \"https://%s\"\nskip_verify = true\n", s.addr()))
			} else {
				s.Start()
			}
			c := newClient(t, o)
			ref, d := blobRef(t, s.addr(), content)
			again := readParts(t, c.Open(ref, d), content, size)
			st := c.Stats()
			t.Logf("%d requests, %d retries, %d ranges asked for again", st.Requests, st.Retries, again)
			if st.Retries < ranges/4 || again == 0 {
				t.Error("the faults did not happen")
			}
			if got := s.requests()[0].ProtoMajor; got != tt.major {
				t.Errorf("HTTP/%d", got)
			}
		})
	}
}

// readParts reads a blob in parts, many at a time, each until its bytes are
// right. It returns how often they were not.
func readParts(t *testing.T, b *Blob, content []byte, size int64) int64 {
	t.Helper()
	var again atomic.Int64
	turns := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for off := int64(0); off < b.Size(); off += size {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			for {
				got, err := readRange(t.Context(), b, off, size)
				switch {
				case err != nil:
					t.Errorf("bytes [%d, +%d): %v", off, size, err)
					return
				case bytes.Equal(got, content[off:off+size]):
					return
				}
				again.Add(1)
			}
		})
	}
	wg.Wait()
	return again.Load()
}

// Documents come through the same faults, verified.
func TestFaultMatrixDocuments(t *testing.T) {
	t.Parallel()
	config := noise(3000)
	s := newHost(t, unlucky(2, 300*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
		if isBlob(r) {
			serveBlob(w, r, config)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(imageManifest)))
		io.WriteString(w, imageManifest) //nolint:errcheck // the client tells
	}))
	c := newClient(t, Options{Retry: Retry{Base: time.Millisecond, Max: 4 * time.Millisecond, Progress: 100 * time.Millisecond}})
	ref, d := blobRef(t, s.addr(), config)
	pinned := named(t, s.addr()+"/a/b@"+digest.FromString(imageManifest).String())
	for range 20 {
		if _, raw, err := c.Manifest(t.Context(), pinned); err != nil || string(raw) != imageManifest {
			t.Fatal(err)
		}
		if raw, err := c.Blob(t.Context(), ref, d); err != nil || !bytes.Equal(raw, config) {
			t.Fatal(err)
		}
	}
}

// A registry that is gone for a while is waited for; a first contact with
// nobody is not.
func TestGoneForAWhile(t *testing.T) {
	t.Parallel()
	content := noise(10_000)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{Retry: Retry{Base: time.Millisecond, Max: 4 * time.Millisecond}})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	wantRange(t, b, content, 1, 1000)
	s.CloseClientConnections()
	s.Close()

	read := make(chan error, 1)
	go func() {
		got, err := readRange(t.Context(), b, 5, 2000)
		if err == nil && !bytes.Equal(got, content[5:2005]) {
			err = io.ErrUnexpectedEOF
		}
		read <- err
	}()
	for c.Stats().Retries < 20 {
		select {
		case err := <-read:
			t.Fatalf("did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if _, _, err := c.Manifest(t.Context(), ref); err == nil {
		t.Error("a manifest from nobody")
	}
	again := newHostAt(t, s.addr(), s.Config.Handler.ServeHTTP)
	if err := <-read; err != nil {
		t.Error(err)
	}
	if len(again.requests()) == 0 {
		t.Error("nobody asked")
	}
}
