package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// opener opens content from its start each time.
func opener(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}

func describing(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// pushImage pushes an image of one layer, the config as a known blob and the
// layer as one whose digest comes last.
func pushImage(t *testing.T, r *Repository, layer []byte, tag string) (ocispec.Descriptor, []byte) {
	t.Helper()
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("tar").String() + `"]}}`)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: describing(ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{describing(ocispec.MediaTypeImageLayerGzip, layer)},
	}
	if err := r.client.PushBlob(t.Context(), r.name, m.Config, opener(config)); err != nil {
		t.Fatal(err)
	}
	u, err := r.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(layer); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(u.Commit(t.Context(), m.Layers[0].Digest), u.Close()); err != nil {
		t.Fatal(err)
	}
	raw := []byte(asJSON(t, m))
	d, err := r.PutManifest(t.Context(), raw, m.MediaType, tag)
	if err != nil {
		t.Fatal(err)
	}
	return d, raw
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// All of a push against real registries, and what they have then, as we and as
// skopeo see it.
func TestPushToRealRegistries(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *httptest.Server{"distribution": distribution, "go-containerregistry": modern} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			host := s.Listener.Addr().String()
			c := newClient(t, Options{})
			r := c.Repository(named(t, host+"/a/b"))
			layer := gzipped(t, noise(chunkSize*5/2))
			desc, raw := pushImage(t, r, layer, "v1")
			if _, got, err := c.Manifest(t.Context(), named(t, host+"/a/b:v1")); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("manifest: %v", err)
			}
			wantRange(t, c.Open(r.name, describing("", layer)), layer, 0, int64(len(layer)))

			before := c.Stats()
			if before.BytesSent < int64(len(layer)) || before.Retries != 0 {
				t.Errorf("%+v", before)
			}
			if err := c.PushBlob(t.Context(), r.name, describing("", layer), func() (io.ReadCloser, error) { return nil, errors.New("opened") }); err != nil {
				t.Errorf("a blob that is there: %v", err)
			}
			there, err := r.HasBlob(t.Context(), describing("", []byte("absent")))
			if err != nil || there || c.Stats().BytesSent != before.BytesSent {
				t.Errorf("absent blob: %v, %v", there, err)
			}
			if mounted, err := c.MountBlob(t.Context(), named(t, host+"/c/d"), r.name, digest.FromBytes(layer)); err != nil || mounted != (name == "distribution") {
				t.Errorf("mounted: %v, %v", mounted, err)
			}
			if mounted, err := c.MountBlob(t.Context(), named(t, host+"/c/d"), r.name, digest.FromString("absent")); err != nil || mounted {
				t.Errorf("absent blob mounted: %v, %v", mounted, err)
			}

			if list, err := c.Referrers(t.Context(), r.name, desc.Digest); err != nil || len(list) != 0 {
				t.Errorf("referrers: %v, %v", list, err)
			}
			want := pushReferrer(t, r, desc, "one")
			if name != "distribution" {
				want.ArtifactType = ocispec.MediaTypeEmptyJSON // wrong, but what it lists
			}
			if list, err := c.Referrers(t.Context(), r.name, desc.Digest); err != nil || cmp.Diff([]ocispec.Descriptor{want}, list) != "" {
				t.Errorf("referrers: %v, %v", list, err)
			}
			skopeoCopies(t, host+"/a/b:v1", digest.FromBytes(layer))
		})
	}
}

// pushReferrer attaches an artifact to a manifest and returns how it is listed.
func pushReferrer(t *testing.T, r *Repository, subject ocispec.Descriptor, note string) ocispec.Descriptor {
	t.Helper()
	raw, want := referrer(t, subject, note)
	if err := r.client.PushBlob(t.Context(), r.name, ocispec.DescriptorEmptyJSON, opener(ocispec.DescriptorEmptyJSON.Data)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutManifest(t.Context(), raw, ocispec.MediaTypeImageManifest, ""); err != nil {
		t.Fatal(err)
	}
	return want
}

func referrer(t *testing.T, subject ocispec.Descriptor, note string) ([]byte, ocispec.Descriptor) {
	t.Helper()
	empty := ocispec.DescriptorEmptyJSON
	empty.Data = nil
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/test",
		Config: empty, Layers: []ocispec.Descriptor{empty}, Subject: &subject, Annotations: map[string]string{"note": note},
	}
	raw := []byte(asJSON(t, m))
	want := describing(m.MediaType, raw)
	want.ArtifactType, want.Annotations = m.ArtifactType, m.Annotations
	return raw, want
}

func skopeoCopies(t *testing.T, ref string, layer digest.Digest) {
	t.Helper()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Log("no skopeo here to try with")
		return
	}
	dir := filepath.Join(t.TempDir(), "copy")
	out, err := exec.CommandContext(t.Context(), skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+ref, "dir:"+dir).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo: %v\n%s", err, out)
	}
	if found, err := filepath.Glob(filepath.Join(dir, layer.Encoded())); err != nil || len(found) != 1 {
		t.Errorf("skopeo copied %v, %v", found, err)
	}
}

func TestPushSmallAndEmpty(t *testing.T) {
	t.Parallel()
	s := distribution(t)
	c := newClient(t, Options{})
	ref := named(t, s.Listener.Addr().String()+"/a/b")
	for _, content := range [][]byte{nil, []byte("x"), noise(chunkSize)} {
		before := c.Stats().Requests
		u, err := c.Upload(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(content)
		if n, err := u.Write(content); n != len(content) || err != nil {
			t.Fatal(n, err)
		}
		if err := errors.Join(u.Commit(t.Context(), d), u.Close()); err != nil {
			t.Fatalf("%d bytes: %v", len(content), err)
		}
		if _, err := u.Write([]byte("more")); err == nil || u.Commit(t.Context(), d) == nil {
			t.Error("written after its commit")
		}
		if n := c.Stats().Requests - before; n != 2 {
			t.Errorf("%d bytes: %d requests", len(content), n)
		}
		if there, err := c.HasBlob(t.Context(), ref, ocispec.Descriptor{Digest: d}); err != nil || !there {
			t.Errorf("%d bytes: %v, %v", len(content), there, err)
		}
	}
}

func TestPushArguments(t *testing.T) {
	t.Parallel()
	s := distribution(t)
	host := s.Listener.Addr().String()
	c := newClient(t, Options{})
	ref := named(t, host+"/a/b")
	content := []byte("content")
	d := describing("", content)
	source := errors.New("disk on fire")
	other := d
	other.Digest = digest.FromString("other")
	longer, shorter := d, d
	longer.Size, shorter.Size = d.Size+1, d.Size-1
	for _, tt := range []struct {
		name string
		do   func() error
		want error
	}{
		{"source fails", func() error {
			return c.PushBlob(t.Context(), ref, d, func() (io.ReadCloser, error) { return nil, source })
		}, source},
		{"source fails on the way", func() error {
			return c.PushBlob(t.Context(), ref, d, func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(content[:3]), brokenReader{source})), nil
			})
		}, source},
		{"too short", func() error { return c.PushBlob(t.Context(), ref, longer, opener(content)) }, ErrVerify},
		{"too long", func() error { return c.PushBlob(t.Context(), ref, shorter, opener(content)) }, ErrVerify},
		{"another digest", func() error { return c.PushBlob(t.Context(), ref, other, opener(content)) }, ErrAnswer},
		{"no digest", func() error { return c.PushBlob(t.Context(), ref, ocispec.Descriptor{Size: 7}, opener(content)) }, ErrUsage},
		{"no size", func() error {
			return c.PushBlob(t.Context(), ref, ocispec.Descriptor{Digest: d.Digest, Size: -1}, opener(content))
		}, ErrUsage},
		{"mount between registries", func() error {
			_, err := c.MountBlob(t.Context(), ref, named(t, "other.example/a/b"), d.Digest)
			return err
		}, ErrUsage},
		{"manifest of another digest", func() error {
			_, err := c.PushManifest(t.Context(), named(t, host+"/a/b@"+d.Digest.String()), ocispec.MediaTypeImageManifest, []byte(imageManifest))
			return err
		}, ErrVerify},
		{"no manifest", func() error {
			_, err := c.PushManifest(t.Context(), ref, ocispec.MediaTypeImageManifest, content)
			return err
		}, ErrUsage},
		{"endless manifest", func() error {
			_, err := c.PushManifest(t.Context(), ref, ocispec.MediaTypeImageManifest, make([]byte, maxDocument+1))
			return err
		}, ErrUsage},
		{"broken subject", func() error {
			_, err := c.PushManifest(t.Context(), ref, ocispec.MediaTypeImageManifest, []byte(`{"subject":{"digest":"x"}}`))
			return err
		}, ErrUsage},
		{"tag that cannot be", func() error {
			_, err := c.Repository(ref).PutManifest(t.Context(), []byte(imageManifest), ocispec.MediaTypeImageManifest, "a b")
			return err
		}, ErrUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "push "+ref.Name()) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
	if n := c.Stats().Retries; n != 0 {
		t.Errorf("%d retries", n)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

func TestPushRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		class  func(error) bool
		words  string
	}{
		{"not logged in", 401, errdefs.IsUnauthorized, "wants a login for pushes to a/b; log in with an account that may push there: peel login"},
		{"denied", 403, errdefs.IsPermissionDenied, "denies pushes to a/b"},
		{"no repository", 404, errdefs.IsNotFound, "has no repository a/b to push to"},
		{"read only", 405, errdefs.IsUnknown, "405"},
		{"down", 503, errdefs.IsUnavailable, "4 attempts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				w.WriteHeader(tt.status)
			})
			c := newClient(t, Options{})
			ref := named(t, s.addr()+"/a/b:v1")
			_, uerr := c.Upload(t.Context(), ref)
			_, merr := c.PushManifest(t.Context(), ref, ocispec.MediaTypeImageManifest, []byte(imageManifest))
			for what, err := range map[string]error{
				"blob": c.PushBlob(t.Context(), ref, describing("", []byte("x")), opener([]byte("x"))), "upload": uerr, "manifest": merr,
			} {
				if err == nil || !tt.class(err) || !strings.Contains(err.Error(), tt.words) || !strings.Contains(err.Error(), s.addr()+"/a/b") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// Only the host configured last is pushed to, and only if it may be.
func TestPushNotToMirrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, capabilities string
		err                error
	}{
		{"origin", `["pull", "resolve", "push"]`, nil},
		{"origin not for pushes", `["pull", "resolve"]`, ErrUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mirror, origin := newHost(t, http.NotFound), distribution(t)
			toml := fmt.Sprintf("server = %q\ncapabilities = %s\n[host.%q]\ncapabilities = [\"pull\", \"resolve\", \"push\"]\n", origin.URL, tt.capabilities, mirror.URL)
			c := newClient(t, Options{HostsDir: hostsDir(t, "reg.example", toml)})
			err := c.PushBlob(t.Context(), named(t, "reg.example/a/b"), describing("", []byte("x")), opener([]byte("x")))
			if !errors.Is(err, tt.err) || len(mirror.requests()) != 0 {
				t.Errorf("error %v, mirror asked %d times", err, len(mirror.requests()))
			}
		})
	}
}

// An upload may go to another host, which must see the signature it asked for
// and no secret of the registry.
func TestPushElsewhere(t *testing.T) {
	t.Parallel()
	var got []byte
	store := newHost(t, func(_ http.ResponseWriter, r *http.Request) { got, _ = io.ReadAll(r.Body) })
	content := noise(100_000)
	var location string
	s := newHost(t, challenge(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusAccepted)
	}))
	dir := hostsDir(t, "reg.example", fmt.Sprintf("server = %q\n[header]\nX-Secret = \"s\"\n", s.URL))
	c := newClient(t, Options{HostsDir: dir, Keychain: keys{s.addr(): authn.AuthConfig{Username: "user", Password: "pass"}}})
	location = store.URL + "/up?z=1&sig=a%2Fb"
	d := describing("", content)
	if err := c.PushBlob(t.Context(), named(t, "reg.example/a/b"), d, opener(content)); err != nil {
		t.Fatal(err)
	}
	put := store.requests()[0]
	if put.Header.Get("Authorization")+put.Header.Get("X-Secret") != "" || put.URL.RawQuery != "z=1&sig=a%2Fb&digest=sha256%3A"+d.Digest.Encoded() {
		t.Errorf("%v, query %s", put.Header, put.URL.RawQuery)
	}
	if !bytes.Equal(got, content) || put.ContentLength != d.Size {
		t.Errorf("%d bytes, declared %d", len(got), put.ContentLength)
	}
	for _, bad := range []string{"", "file:///x", ":", "http://%zz"} {
		location = bad
		if err := c.PushBlob(t.Context(), named(t, "reg.example/a/b"), d, opener(content)); !errors.Is(err, ErrAnswer) {
			t.Errorf("location %q: %v", bad, err)
		}
	}
}

func TestMoved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, base, location, want string
	}{
		{"relative", "https://r.example/v2", "/v2/up?x=1", "https://r.example/v2/up?x=1"},
		{"same host", "https://r.example/v2", "https://r.example/v2/up", "https://r.example/v2/up"},
		{"other host", "https://r.example/v2", "https://s.example/up", "https://s.example/up"},
		{"does not know of TLS", "https://r.example/v2", "http://r.example/v2/up", "https://r.example/v2/up"},
		{"does not know of TLS, other port", "https://r.example:8443/v2", "http://r.example/v2/up", "https://r.example:8443/v2/up"},
		{"plain HTTP elsewhere", "https://r.example/v2", "http://s.example/up", ""},
		{"private", "https://r.example/v2", "https://10.0.0.1/up", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			base := mustURL(t, tt.base)
			s := &session{target: target{endpoint: &endpoint{base: base}}}
			err := s.moved(&answer{Response: &http.Response{Header: http.Header{"Location": {tt.location}}}, url: base})
			got := ""
			if err == nil {
				got = s.at.String()
			}
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestPushCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", "/up")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut, http.MethodPatch:
			io.CopyN(io.Discard, r.Body, 1000) //nolint:errcheck // just some
			cancel()
			<-release
		}
	})
	defer close(release)
	c := newClient(t, Options{})
	ref := named(t, s.addr()+"/a/b")
	content := noise(chunkSize + 1)
	u, err := c.Upload(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	u.flush = func() error { return u.send(ctx) }
	if _, err := u.Write(content); !errors.Is(err, context.Canceled) {
		t.Errorf("upload: %v", err)
	}
	if err := u.Commit(t.Context(), digest.FromBytes(content)); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if err := errors.Join(u.Close(), u.Close()); err != nil {
		t.Error(err)
	}
	seen := s.requests()
	if last := seen[len(seen)-1]; last.Method != http.MethodDelete || last.URL.Path != "/up" {
		t.Errorf("last request: %s %s", last.Method, last.URL.Path)
	}
	if err := c.PushBlob(ctx, ref, describing("", content), opener(content)); !errors.Is(err, context.Canceled) {
		t.Errorf("blob: %v", err)
	}
}
