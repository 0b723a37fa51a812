//go:build linux

package registries

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// TestRangesIgnored: some registries and proxies send all of a blob whatever
// part was asked for; others do so and say that it is the part.
func TestRangesIgnored(t *testing.T) {
	t.Parallel()
	dir, _ := layout(t)
	for _, tc := range []struct {
		name string
		do   func(http.Handler) http.Handler
	}{
		{"all for a part", testkit.IgnoreRange},
		{"nothing for a part", func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
					return
				}
				next.ServeHTTP(w, r)
			})
		}},
		{"a part is a bad request", func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					w.WriteHeader(http.StatusBadRequest)
					return
				}
				next.ServeHTTP(w, r)
			})
		}},
		{"another part", func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					r.Header.Set("Range", "bytes=0-99")
				}
				next.ServeHTTP(w, r)
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			reg.Push(t, dir, "oci", "a/b")
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.Inject(testkit.Fault{Path: "/blobs/", Do: tc.do})
			p := testkit.NewPeel(t)
			root := p.Mount(proxy.Ref("a/b", "oci"))
			readsAll(t, root)
			p.Umount(root)
		})
	}
}

// TestCompressedTransfer: a proxy that compresses what it passes on would make
// ranges wrong; whoever asks for one must refuse it.
func TestCompressedTransfer(t *testing.T) {
	t.Parallel()
	dir, _ := layout(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, dir, "oci", "a/b")
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.Inject(testkit.Fault{Path: "/blobs/", Do: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			next.ServeHTTP(w, r)
		})
	}})
	p := testkit.NewPeel(t)
	r := p.Run("mount", proxy.Ref("a/b", "oci"), p.Dir())
	if r.Code == testkit.OK || !strings.Contains(r.Stderr, "Content-Encoding") {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
}

// TestArtifact mounts an artifact that is no image: its layers are its files.
func TestArtifact(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	files := map[string][]byte{"chart.yaml": []byte("name: chart\n"), "models/weights.bin": testkit.Noise(4, 3_000_000)}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.model", Config: ocispec.DescriptorEmptyJSON,
	}
	testkit.PutBlob(t, reg.Host(), "a/rt", []byte("{}"))
	for _, name := range []string{"chart.yaml", "models/weights.bin"} {
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: "application/octet-stream", Digest: testkit.PutBlob(t, reg.Host(), "a/rt", files[name]), Size: int64(len(files[name])),
			Annotations: map[string]string{ocispec.AnnotationTitle: name},
		})
	}
	untitled := []byte("no title")
	nameless := ocispec.Descriptor{MediaType: "text/plain", Digest: testkit.PutBlob(t, reg.Host(), "a/rt", untitled), Size: int64(len(untitled))}
	m.Layers = append(m.Layers, nameless)
	files[nameless.Digest.Encoded()] = untitled
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	testkit.PutManifest(t, reg.Host(), "a/rt", "v1", m.MediaType, raw)
	p := testkit.NewPeel(t)
	ref := reg.Ref("a/rt", "v1")
	root := p.Mount(ref)
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != string(want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	p.Umount(root)
	p.Must("pull", ref)
	p.Must("layers", ref)
	p.Must("inspect", ref)
}

// TestWarning shows what a registry warns of, once.
func TestWarning(t *testing.T) {
	t.Parallel()
	dir, _ := layout(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, dir, "oci", "a/b")
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.Inject(testkit.Fault{Do: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Warning", `299 - "this registry will close in May"`)
			next.ServeHTTP(w, r)
		})
	}})
	p := testkit.NewPeel(t)
	r := p.Must("pull", proxy.Ref("a/b", "oci"))
	if n := strings.Count(r.Stderr, "will close in May"); n != 1 {
		t.Errorf("shown %d times:\n%s", n, r.Stderr)
	}
	for _, w := range proxy.Wire() {
		if !strings.HasPrefix(w.Header.Get("User-Agent"), "peel") {
			t.Errorf("user agent %q", w.Header.Get("User-Agent"))
		}
	}
}
