package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// A script answers the nth blob request, from 0, and reports whether it did;
// the rest is served as a good registry would.
type script func(n int, w http.ResponseWriter, r *http.Request) bool

func scripted(content []byte, s script) http.HandlerFunc {
	var count atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if !s(int(count.Add(1))-1, w, r) {
			serveBlob(w, r, content)
		}
	}
}

func status(code int) script {
	return func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			w.WriteHeader(code)
		}
		return n == 0
	}
}

// part206 answers the first request with a part that it declares as crange.
func part206(content []byte, crange string) script {
	return func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n > 0 {
			return false
		}
		w.Header().Set("Content-Range", crange)
		w.WriteHeader(http.StatusPartialContent)
		w.Write(content) //nolint:errcheck // the client tells
		return true
	}
}

// dies sends the first n bytes of the first answer, then breaks the connection.
func dies(content []byte, bytes int) script {
	return func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 0 {
			return false
		}
		serveBlob(&cut{w, bytes}, r, content)
		return true
	}
}

// cut aborts a response after left bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	c.left -= n
	if c.left == 0 {
		http.NewResponseController(c.ResponseWriter).Flush() //nolint:errcheck // the client tells
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestReadRangeFaults(t *testing.T) {
	t.Parallel()
	content := noise(300_000)
	const off, n = 1000, 200_000
	whole := fmt.Sprintf("bytes=%d-%d", off, off+n-1)
	rest := func(got int) string { return fmt.Sprintf("bytes=%d-%d", off+got, off+n-1) }
	for _, tt := range []struct {
		name   string
		script script
		ranges []string // requests sent
		err    error
	}{
		{"none", func(int, http.ResponseWriter, *http.Request) bool { return false }, []string{whole}, nil},
		{"503", status(503), []string{whole, whole}, nil},
		{"500", status(500), []string{whole, whole}, nil},
		{"429", status(429), []string{whole, whole}, nil},
		{"501", status(501), []string{whole}, ErrAnswer},
		{"403", status(403), []string{whole}, ErrDenied},
		{"404", status(404), []string{whole}, ErrNotFound},
		{"400", status(400), []string{whole}, ErrRange},
		{"416", status(416), []string{whole}, ErrRange},
		{"204", status(204), []string{whole}, ErrAnswer},
		{"reset before the header", func(n int, _ http.ResponseWriter, _ *http.Request) bool {
			if n == 0 {
				panic(http.ErrAbortHandler)
			}
			return false
		}, []string{whole, whole}, nil},
		{"reset in the body", dies(content, 70_000), []string{whole, rest(70_000)}, nil},
		{"reset at the first byte", dies(content, 1), []string{whole, rest(1)}, nil},
		{"short 206", part206(content[off:off+50_000], fmt.Sprintf("bytes %d-%d/300000", off, off+49_999)), []string{whole, rest(50_000)}, nil},
		{"very short 206", part206(content[off:off+5], fmt.Sprintf("bytes %d-%d/300000", off, off+4)), []string{whole, rest(5)}, nil},
		{"206 from elsewhere", part206(content[:n], fmt.Sprintf("bytes 0-%d/300000", n-1)), []string{whole}, ErrRange},
		{"206 without Content-Range", part206(content[off:off+n], ""), []string{whole}, ErrRange},
		{"206 of another blob", part206(content[off:off+n], fmt.Sprintf("bytes %d-%d/300001", off, off+n-1)), []string{whole}, ErrVerify},
		{"200 for a near range", func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}, []string{whole}, nil},
		{"200, near range, dies", func(k int, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return dies(content, off+100_000)(k, w, r)
		}, []string{whole, rest(100_000)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, scripted(content, tt.script))
			c := newClient(t, Options{})
			ref, d := blobRef(t, s.addr(), content)
			got, err := readRange(t.Context(), c.Open(ref, d), off, n)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && !bytes.Equal(got, content[off:off+n]) {
				t.Error("content differs")
			}
			if err != nil && !(strings.Contains(err.Error(), d.Digest.String()) && strings.Contains(err.Error(), s.addr())) {
				t.Errorf("error names not what and where: %v", err)
			}
			if diff := cmp.Diff(tt.ranges, s.ranges()); diff != "" {
				t.Error(diff)
			}
			if retries := c.Stats().Retries; err == nil && tt.name != "none" && len(tt.ranges) > 1 && tt.name != "short 206" && retries != 1 {
				t.Errorf("%d retries", retries)
			}
		})
	}
}

func TestReadRangeFarRangeIgnored(t *testing.T) {
	t.Parallel()
	content := noise(3 << 20)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		serveBlob(w, r, content)
	})
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	for range 2 {
		if _, err := readRange(t.Context(), b, 2<<20, 100); !errors.Is(err, ErrRange) || !errdefs.IsNotImplemented(err) {
			t.Fatalf("far: %v", err)
		}
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests, the quirk is not remembered", n)
	}
	wantRange(t, b, content, 100, 5000)
	wantRange(t, b, content, 0, int64(len(content)))
}

// A host that sends a byte and dies, again and again, is not alive.
func TestReadRangeDrip(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(&cut{w, 1}, r, content) })
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	_, err := readRange(t.Context(), c.Open(ref, d), 10, 50_000)
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	if n := len(s.requests()); n != quick().Attempts {
		t.Errorf("%d requests", n)
	}
}

// No error of a broken connection may look like the end of the range.
func TestReadRangeNeverEOF(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	s := newHost(t, scripted(content, func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 0 {
			panic(http.ErrAbortHandler)
		}
		return dies(content, 50_000)(n, w, r)
	}))
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	r, err := b.ReadRange(t.Context(), 1, 99_000)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if n != 50_000 || !errors.Is(err, ErrUnreachable) || errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, again := r.Read(make([]byte, 1)); again == nil || again.Error() != err.Error() {
		t.Errorf("read after the failure: %v", again)
	}
	if _, err := b.ReadRange(t.Context(), 1, 5); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("open: %v", err)
	}
}

func TestReadRangeProgressRenewsAttempts(t *testing.T) {
	t.Parallel()
	content := noise(1 << 20)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(&cut{w, 64 << 10}, r, content) })
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	wantRange(t, c.Open(ref, d), content, 1, 1<<20-1)
	if n := len(s.requests()); n < 10 {
		t.Errorf("%d requests", n)
	}
}

func TestReadRangeArguments(t *testing.T) {
	t.Parallel()
	s := newHost(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), noise(10))
	b := c.Open(ref, d)
	if b.Size() != 10 {
		t.Errorf("size %d", b.Size())
	}
	for _, w := range []window{{-1, 1, 0}, {0, -1, 0}, {0, 11, 0}, {5, 6, 0}, {11, 0, 0}, {1 << 62, 1 << 62, 0}} {
		if _, err := b.ReadRange(t.Context(), w.off, w.n); !errors.Is(err, ErrUsage) {
			t.Errorf("%v: %v", w, err)
		}
	}
	if got, err := readRange(t.Context(), b, 10, 0); err != nil || len(got) != 0 {
		t.Errorf("empty range: %v, %v", got, err)
	}
	d.Digest = "sha256:../../x"
	if _, err := c.Open(ref, d).ReadRange(t.Context(), 0, 1); !errors.Is(err, ErrUsage) {
		t.Errorf("bad digest: %v", err)
	}
	if n := len(s.requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestReadRangeCancel(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	s := newHost(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-held:
		}
	})
	t.Cleanup(func() { close(held) })
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), noise(10))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Open(ref, d).ReadRange(ctx, 0, 5); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	before := c.Stats()
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := c.Open(ref, d).ReadRange(ctx, 0, 5); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
	if after := c.Stats(); after.LastErrorAt != before.LastErrorAt {
		t.Error("a cancelled read counts as failure of the registry")
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(Options{MaxPerHost: 3, RequestRate: 100}, newGate(Options{MaxPerHost: 3}))
		var open []func()
		for range 3 {
			slot, err := l.acquire(t.Context(), "a", 0)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, slot.release)
		}
		if slot, err := l.acquire(t.Context(), "b", 0); err != nil {
			t.Fatal(err)
		} else {
			slot.release()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.acquire(ctx, "a", 0); !errors.Is(err, ErrUnreachable) {
			t.Errorf("fourth: %v", err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if slot, err := l.acquire(t.Context(), "a", 0); err == nil {
				slot.release()
			}
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Error("a fourth did not wait")
		default:
		}
		open[0]()
		<-done
		open[1]()
		open[2]()
		if len(l.hosts) != 0 {
			t.Error("idle hosts are remembered")
		}
	})
}

func TestOpenBodyHoldsItsSlot(t *testing.T) {
	t.Parallel()
	content := noise(1 << 20)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{MaxPerHost: 1})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	held, err := b.ReadRange(t.Context(), 1, 1<<20-1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := readRange(ctx, b, 5, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	wantRange(t, b, content, 5, 5)
	if len(c.limiter.hosts) != 0 {
		t.Error("a slot is lost")
	}
}

func TestReadRangeConnectionsReused(t *testing.T) {
	t.Parallel()
	content := noise(1 << 20)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	for i := range int64(20) {
		wantRange(t, b, content, i*1000, 30_000)
	}
	remotes := map[string]bool{}
	for _, r := range s.requests() {
		remotes[r.RemoteAddr] = true
	}
	if len(remotes) != 1 {
		t.Errorf("%d connections for reads one after the other", len(remotes))
	}
}

func TestBlob(t *testing.T) {
	t.Parallel()
	content := noise(1000)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), content)
	got, err := c.Blob(t.Context(), ref, d)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatal(err)
	}
	big := d
	big.Size = maxDocument + 1
	if _, err := c.Blob(t.Context(), ref, big); !errors.Is(err, ErrUsage) {
		t.Errorf("too big: %v", err)
	}
	content[5]++
	if _, err := c.Blob(t.Context(), ref, d); !errors.Is(err, ErrVerify) || !errdefs.IsDataLoss(err) {
		t.Errorf("corrupt: %v", err)
	}
}

func BenchmarkReadRange(b *testing.B) {
	content := noise(64 << 20)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) }))
	defer s.Close()
	c, err := New(Options{Keychain: keys{}, HostsDir: b.TempDir(), RequestRate: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ref, d := blobRef(b, s.Listener.Addr().String(), content)
	blob := c.Open(ref, d)
	for _, size := range []int64{4 << 10, 64 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			start := c.Stats()
			for b.Loop() {
				r, err := blob.ReadRange(b.Context(), 0, size)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
			end := c.Stats()
			b.ReportMetric(float64(end.Requests-start.Requests)/float64(b.N), "requests/op")
			b.ReportMetric(float64(end.BytesFetched-start.BytesFetched)/float64(b.N), "wirebytes/op")
		})
	}
}
