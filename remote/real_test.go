package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// distribution is the reference registry, in this process.
func distribution(t *testing.T) *httptest.Server {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem":  {"rootdirectory": t.TempDir()},
		"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	config.Catalog.MaxEntries = 100
	config.HTTP.Secret = "only for tests"
	logrus.SetOutput(io.Discard) // the registry's logger, used by nothing else here
	app := handlers.NewApp(context.WithoutCancel(t.Context()), config)
	s := httptest.NewServer(app)
	t.Cleanup(func() {
		s.Close()
		if err := app.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send does one request of a push and returns the answer's Location.
func send(t *testing.T, s *httptest.Server, method, url, mediaType string, content []byte) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s", method, url, resp.Status)
	}
	return resp.Header.Get("Location")
}

func pushBlob(t *testing.T, s *httptest.Server, repo string, content []byte) ocispec.Descriptor {
	t.Helper()
	d := digest.FromBytes(content)
	at := send(t, s, http.MethodPost, s.URL+"/v2/"+repo+"/blobs/uploads/", "", nil)
	at += map[bool]string{true: "&", false: "?"}[strings.Contains(at, "?")] + "digest=" + d.String()
	send(t, s, http.MethodPut, at, "application/octet-stream", content)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: int64(len(content))}
}

func pushManifest(t *testing.T, s *httptest.Server, repo, tag string, layers ...ocispec.Descriptor) (ocispec.Descriptor, []byte) {
	t.Helper()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    pushBlob(t, s, repo, []byte(`{}`)),
		Layers:    layers,
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	send(t, s, http.MethodPut, s.URL+"/v2/"+repo+"/manifests/"+tag, m.MediaType, raw)
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw
}

func TestRealRegistry(t *testing.T) {
	t.Parallel()
	s := distribution(t)
	host := s.Listener.Addr().String()
	content := noise(2 << 20)
	layer := pushBlob(t, s, "a/b", content)
	want, raw := pushManifest(t, s, "a/b", "v1", layer)
	c := newClient(t, Options{})

	if err := c.Ping(t.Context(), host); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"/a/b:v1", "/a/b@" + want.Digest.String(), "/a/b:other@" + want.Digest.String()} {
		desc, got, err := c.Manifest(t.Context(), named(t, host+name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, desc); diff != "" || !bytes.Equal(got, raw) {
			t.Errorf("%s: %s", name, diff)
		}
	}
	ref := named(t, host+"/a/b:v1")
	b := c.Open(ref, layer)
	wantRange(t, b, content, 0, layer.Size)
	wantRange(t, b, content, layer.Size-1, 1)
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			g := rand.New(rand.NewPCG(seed, 0))
			for range 10 {
				off := g.Int64N(layer.Size)
				n := g.Int64N(min(layer.Size-off, 200_000)) + 1
				got, err := readRange(t.Context(), b, off, n)
				if err != nil || !bytes.Equal(got, content[off:off+n]) {
					t.Errorf("bytes [%d, +%d): %v", off, n, err)
				}
			}
		})
	}
	wg.Wait()

	for _, name := range []string{"/a/b:none", "/a/none:v1", "/a/b@" + digest.FromString("none").String()} {
		_, _, err := c.Manifest(t.Context(), named(t, host+name))
		if !errors.Is(err, ErrNotFound) || !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), host+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	missing := layer
	missing.Digest = digest.FromString("none")
	if _, err := c.Open(ref, missing).ReadRange(t.Context(), 5, 5); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing blob: %v", err)
	}
	if got := c.Stats(); got.Retries != 0 || got.BytesFetched < layer.Size || got.Requests < 80 ||
		got.LastErrorHost != host || !strings.Contains(got.LastError, "not found") || got.LastErrorAt.IsZero() {
		t.Errorf("%+v", got)
	}
}
