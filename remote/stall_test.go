package remote

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// wire is a listener without a network, so that the clock can be a false one.
type wire struct {
	conns chan net.Conn
	done  chan struct{}
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error { close(w.done); return nil }

func (w *wire) Addr() net.Addr { return &net.TCPAddr{} }

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case w.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const wired = "r.example"

// wireClient is a client with default retries whose registry r.example is h,
// for a bubble of synctest.
func wireClient(t *testing.T, h http.Handler) (c *Client, stop func()) {
	t.Helper()
	c, end := plainWire(t, h)
	return c, func() {
		end()
		synctest.Wait()
	}
}

// plainWire is wireClient for use outside of bubbles. Its registry is a public
// one, as far as can be seen.
func plainWire(t *testing.T, h http.Handler) (c *Client, stop func()) {
	t.Helper()
	return optionWire(t, &http.Server{Handler: h}, Options{})
}

// optionWire is plainWire with options of the client and of the server.
func optionWire(t *testing.T, s *http.Server, o Options) (c *Client, stop func()) {
	t.Helper()
	w := &wire{make(chan net.Conn), make(chan struct{})}
	go s.Serve(w) //nolint:errcheck // ends with stop
	o.PlainHTTP, o.Keychain = true, keys{}
	if o.HostsDir == "" {
		o.HostsDir = t.TempDir()
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.registry(t.Context(), wired)
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range r.transports {
		tr.DialContext = w.dial
	}
	return c, func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// rest is how a slow server passes time; false if the client has gone.
func rest(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func TestReadRangeStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(100_000)
		var ranges []string
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ranges = append(ranges, r.Header.Get("Range"))
			switch len(ranges) {
			case 1: // no header
				<-r.Context().Done()
			case 2: // no end
				w.Header().Set("Content-Range", "bytes 0-99998/100000")
				w.Header().Set("Content-Length", "99999")
				w.WriteHeader(http.StatusPartialContent)
				w.Write(content[:40_000])             //nolint:errcheck // the client tells
				http.NewResponseController(w).Flush() //nolint:errcheck // the client tells
				<-r.Context().Done()
			default:
				serveBlob(w, r, content)
			}
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		start := time.Now()
		got, err := readRange(t.Context(), c.Open(ref, d), 0, 99_999)
		if err != nil || !bytes.Equal(got, content[:99_999]) {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 40*time.Second || d > 41*time.Second {
			t.Errorf("took %v, two stalls are noticed after 20 s each", d)
		}
		if diff := cmp.Diff([]string{"bytes=0-99998", "bytes=0-99998", "bytes=40000-99998"}, ranges); diff != "" {
			t.Error(diff)
		}
	})
}

// A slow registry is waited for as long as it sends something now and then.
func TestReadRangeSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(200_000)
		requests := 0
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			for i := 0; i < len(content) && rest(r, 15*time.Second); i += 20_000 {
				w.Write(content[i : i+20_000])        //nolint:errcheck // the client tells
				http.NewResponseController(w).Flush() //nolint:errcheck // the client tells
			}
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		got, err := readRange(t.Context(), c.Open(ref, d), 0, d.Size)
		if err != nil || !bytes.Equal(got, content) || requests != 1 {
			t.Errorf("%d requests, %v", requests, err)
		}
	})
}

// A registry that takes connections and says nothing fails a read in time.
func TestReadRangeSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, stop := wireClient(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		defer stop()
		ref, d := blobRef(t, wired, noise(10))
		start := time.Now()
		_, err := readRange(t.Context(), c.Open(ref, d), 0, 5)
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, errStalled) {
			t.Errorf("error %v", err)
		}
		if d := time.Since(start); d < 55*time.Second || d > 61*time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

// Bytes that come too slowly to matter do not keep a read alive for ever.
func TestReadRangeTrickle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(50_000)
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "50000")
			for i := 0; i < len(content) && rest(r, time.Second); i++ {
				w.Write(content[i : i+1])             //nolint:errcheck // the client tells
				http.NewResponseController(w).Flush() //nolint:errcheck // the client tells
			}
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		start := time.Now()
		if _, err := readRange(t.Context(), c.Open(ref, d), 0, d.Size); !errors.Is(err, ErrUnreachable) {
			t.Errorf("error %v", err)
		}
		if d := time.Since(start); d > 90*time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

// Who asks where a blob is for all may wait in vain; the others do not.
func TestStallOfAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(5000)
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) }))
		defer stop()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		<-b.turn
		start := time.Now()
		wantRange(t, b, content, 5, 100)
		if d := time.Since(start); d != defaultProgress {
			t.Errorf("asked after %v", d)
		}
	})
}
