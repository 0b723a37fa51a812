package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// What is thrown away is no progress: else a host that fails at length is asked
// for ever.
func TestNoProgress(t *testing.T) {
	t.Parallel()
	content := noise(3 << 20)
	long := bytes.Repeat([]byte("x"), minProgress)
	cut := func(w http.ResponseWriter, n int) {
		w.Header().Set("Content-Length", "3145728")
		_, _ = w.Write(content[:n])
		panic(http.ErrAbortHandler)
	}
	for _, tt := range []struct {
		name  string
		serve func(w http.ResponseWriter)
		ask   func(ctx context.Context, c *Client, addr string) error
	}{
		{"errors with a long text", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write(long)
		}, askBlob(t, content, 100)},
		{"documents that end early", func(w http.ResponseWriter) { cut(w, 2*minProgress) }, func(ctx context.Context, c *Client, addr string) error {
			_, _, err := c.Manifest(ctx, named(t, addr+"/a/b:tag"))
			return err
		}},
		{"bytes before the range", func(w http.ResponseWriter) { cut(w, 2*minProgress) }, askBlob(t, content, maxSkip)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
				n.Add(1)
				tt.serve(w)
			})
			retry := quick()
			retry.Attempts = 5
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := tt.ask(ctx, newClient(t, Options{Retry: retry}), s.addr())
			if !errors.Is(err, ErrUnreachable) || ctx.Err() != nil || n.Load() != 5 {
				t.Errorf("%d requests: %v", n.Load(), err)
			}
		})
	}
}

// askBlob reads some bytes at off.
func askBlob(t *testing.T, content []byte, off int64) func(context.Context, *Client, string) error {
	return func(ctx context.Context, c *Client, addr string) error {
		ref, d := blobRef(t, addr, content)
		_, err := readRange(ctx, c.Open(ref, d), off, 1000)
		return err
	}
}

// Who stops reading says nothing against the host, nor against where it led.
func TestCancelledReadBlamesNobody(t *testing.T) {
	t.Parallel()
	content := noise(1 << 20)
	var slow atomic.Bool
	store := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		if slow.Load() {
			w.Header().Set("Content-Range", "bytes 10-109/1048576")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[10:20])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		serveBlob(w, r, content)
	})
	registry := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, store.URL+"/x", http.StatusTemporaryRedirect)
	})
	c := newClient(t, Options{})
	ref, d := blobRef(t, registry.addr(), content)
	b := c.Open(ref, d)
	wantRange(t, b, content, 10, 100)
	slow.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := b.ReadRange(ctx, 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if _, err := b.ReadRange(ctx, 10, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("next read: %v", err)
	}
	slow.Store(false)
	wantRange(t, b, content, 10, 100)
	if n := len(registry.requests()); n != 1 {
		t.Errorf("the registry was asked %d times where the blob is", n)
	}
	if down := c.registries[registry.addr()].endpoints[0].downUntil.Load(); down != 0 {
		t.Error("the registry counts as down")
	}
}
