package remote

import (
	"bytes"
	"context"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The registry of the tests never ends its event queue.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/docker/go-events.(*Broadcaster).run"))
}

// host is a server that remembers what it was asked.
type host struct {
	*httptest.Server

	mu   sync.Mutex // guards seen
	seen []*http.Request
}

func newHost(t *testing.T, h http.HandlerFunc) *host {
	t.Helper()
	s := newUnstartedHost(t, h)
	s.Start()
	return s
}

// newHostAt is a server at an address that another one had.
func newHostAt(t *testing.T, addr string, h http.HandlerFunc) *host {
	t.Helper()
	s := newUnstartedHost(t, h)
	if err := s.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = l
	s.Start()
	return s
}

func newUnstartedHost(t *testing.T, h http.HandlerFunc) *host {
	t.Helper()
	s := &host{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Clone(context.WithoutCancel(r.Context())))
		s.mu.Unlock()
		h(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *host) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

func (s *host) addr() string { return s.Listener.Addr().String() }

// ranges lists the Range headers of the blob requests, in order.
func (s *host) ranges() []string {
	var out []string
	for _, r := range s.requests() {
		out = append(out, r.Header.Get("Range"))
	}
	return out
}

// blobRef names a blob of repository a/b at the registry.
func blobRef(t testing.TB, registry string, content []byte) (reference.Named, ocispec.Descriptor) {
	t.Helper()
	return named(t, registry+"/a/b:tag"), ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func named(t testing.TB, s string) reference.Named {
	t.Helper()
	ref, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// noise is n reproducible bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	g := rand.NewChaCha8([32]byte{7})
	_, _ = g.Read(b) // never fails
	return b
}

func serveBlob(w http.ResponseWriter, r *http.Request, content []byte) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// quick tries again at once, but is as patient as a loaded machine needs.
func quick() Retry {
	return Retry{Attempts: 4, Budget: time.Minute, Progress: time.Minute, Base: time.Millisecond, Max: 4 * time.Millisecond}
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Retry == (Retry{}) {
		o.Retry = quick()
	}
	if o.Keychain == nil {
		o.Keychain = keys{}
	}
	if o.HostsDir == "" {
		o.HostsDir = t.TempDir()
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// keys is a keychain: login by host.
type keys map[string]authn.AuthConfig

func (k keys) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if cfg, ok := k[r.RegistryStr()]; ok {
		return authn.FromConfig(cfg), nil
	}
	return authn.Anonymous, nil
}

// readRange reads a range to its end.
func readRange(ctx context.Context, b *Blob, off, n int64) ([]byte, error) {
	r, err := b.ReadRange(ctx, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// wantRange reads a range and compares it with the content.
func wantRange(t *testing.T, b *Blob, content []byte, off, n int64) {
	t.Helper()
	got, err := readRange(t.Context(), b, off, n)
	if err != nil {
		t.Fatalf("bytes [%d, +%d): %v", off, n, err)
	}
	if !bytes.Equal(got, content[off:off+n]) {
		t.Fatalf("bytes [%d, +%d) differ", off, n)
	}
}

// isBlob reports whether a request is for a blob at the registry.
func isBlob(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }
