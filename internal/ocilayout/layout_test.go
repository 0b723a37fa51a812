package ocilayout

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func open(t *testing.T, dir string) *Layout {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func put(t *testing.T, l *Layout, mediaType string, content []byte) ocispec.Descriptor {
	t.Helper()
	w, err := l.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for part := content; len(part) > 0; {
		n, err := w.Write(part[:min(len(part), 1000)])
		if err != nil {
			t.Fatal(err)
		}
		part = part[n:]
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := errors.Join(w.Commit(t.Context(), d.Digest), w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return d
}

func index(t *testing.T, dir string) ocispec.Index {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		t.Fatal(err)
	}
	var i ocispec.Index
	if err := json.Unmarshal(raw, &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// names lists the tags in the order of index.json.
func names(i ocispec.Index) []string {
	var out []string
	for _, m := range i.Manifests {
		out = append(out, m.Annotations[ocispec.AnnotationRefName])
	}
	return out
}

// leftovers lists what is in the blobs folder beside blobs.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "blobs", ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// An image as go-containerregistry and skopeo see it.
func TestImage(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "layout")
	l := open(t, dir)
	archive := make([]byte, 10240) // an empty tar
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	config := ocispec.Image{
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(archive)}},
	}
	rawConfig, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: put(t, l, ocispec.MediaTypeImageConfig, rawConfig),
		Layers: []ocispec.Descriptor{put(t, l, ocispec.MediaTypeImageLayerGzip, zipped.Bytes())},
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.PutManifest(t.Context(), raw, m.MediaType, "")
	if err != nil || d.Digest != digest.FromBytes(raw) || d.Size != int64(len(raw)) || d.MediaType != m.MediaType {
		t.Fatalf("%+v, %v", d, err)
	}
	if i := index(t, dir); len(i.Manifests) != 0 {
		t.Errorf("named without a tag: %+v", i)
	}
	if _, err := l.PutManifest(t.Context(), raw, m.MediaType, "v1"); err != nil {
		t.Fatal(err)
	}

	seen, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(seen); err != nil {
		t.Error(err)
	}
	if skopeo, err := exec.LookPath("skopeo"); err == nil {
		to := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.CommandContext(t.Context(), skopeo, "--insecure-policy", "copy", "oci:"+dir+":v1", "dir:"+to).CombinedOutput(); err != nil {
			t.Errorf("skopeo: %v\n%s", err, out)
		}
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	tag := func(name, content string) {
		t.Helper()
		if _, err := l.PutManifest(t.Context(), []byte(content), ocispec.MediaTypeImageManifest, name); err != nil {
			t.Fatal(err)
		}
	}
	tag("a", "1")
	tag("b", "2")
	// What another tool wrote is kept.
	i := index(t, dir)
	i.Annotations = map[string]string{"note": "kept"}
	i.Manifests[1].Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	i.Manifests = append(i.Manifests, ocispec.Descriptor{MediaType: "x/y", Digest: digest.FromString("unnamed"), Size: 1})
	raw, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ocispec.ImageIndexFile), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	tag("a", "3")
	got := index(t, dir)
	if diff := cmp.Diff([]string{"b", "", "a"}, names(got)); diff != "" {
		t.Error(diff)
	}
	if got.Annotations["note"] != "kept" || got.Manifests[0].Platform.Architecture != "arm64" || got.Manifests[2].Digest != digest.FromString("3") {
		t.Errorf("%+v", got)
	}
	if there, err := l.HasBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("1"), Size: 1}); err != nil || !there {
		t.Errorf("the blob of a tag that was moved: %v, %v", there, err)
	}
}

func TestBlobsThatAreThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	d := put(t, l, "", []byte("content"))
	path := filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, "", []byte("content"))
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("written again: %v", err)
	}
	if err := os.Truncate(path, 3); err != nil {
		t.Fatal(err)
	}
	if there, err := l.HasBlob(t.Context(), d); err != nil || there {
		t.Errorf("torn blob: %v, %v", there, err)
	}
	put(t, l, "", []byte("content"))
	if there, err := l.HasBlob(t.Context(), d); err != nil || !there {
		t.Errorf("mended blob: %v, %v", there, err)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBlobsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		digest digest.Digest
		want   error
	}{
		{"another digest", t.Context(), digest.FromString("other"), ErrVerify},
		{"no digest", t.Context(), "../../x", digest.ErrDigestInvalidFormat},
		{"another algorithm", t.Context(), digest.SHA512.FromString("content"), digest.ErrDigestUnsupported},
		{"cancelled", cancelled, digest.FromString("content"), context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, err := l.Create(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte("content")); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(tt.ctx, tt.digest); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("commit: %v", err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if _, err := w.Write([]byte("x")); err == nil || w.Commit(t.Context(), digest.FromString("content")) == nil {
				t.Error("written after its end")
			}
		})
	}
	if _, err := l.Create(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if _, err := l.HasBlob(t.Context(), ocispec.Descriptor{Digest: "x"}); err == nil {
		t.Error("has a blob without a digest")
	}
	blobs, err := os.ReadDir(l.blobs())
	if err != nil || len(blobs)+len(leftovers(t, dir)) != 0 {
		t.Errorf("left: %v, %v, %v", blobs, leftovers(t, dir), err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  error
	}{
		{"empty", nil, nil},
		{"layout", map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":2,"manifests":[]}`}, nil},
		{"not finished", map[string]string{"index.json": `{"schemaVersion":2}`}, nil},
		{"another folder", map[string]string{"README": "x"}, ErrMalformed},
		{"another version", map[string]string{"oci-layout": `{"imageLayoutVersion":"2.0.0"}`}, ErrMalformed},
		{"no JSON", map[string]string{"oci-layout": `{`}, ErrMalformed},
		{"no index", map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}, fs.ErrNotExist},
		{"broken index", map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `[]`}, ErrMalformed},
		{"index of another schema", map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":1}`}, ErrMalformed},
		{"endless index", map[string]string{"index.json": strings.Repeat(" ", maxIndex+1)}, ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, content := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			l, err := Open(dir)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), dir) {
					t.Errorf("the error names no folder: %v", err)
				}
				return
			}
			if _, err := l.PutManifest(t.Context(), []byte(`{}`), "x/y", "v1"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"v1"}, names(index(t, dir))); diff != "" {
				t.Error(diff)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a file was opened")
	}
	if !errors.Is(ErrMalformed, errdefs.ErrFailedPrecondition) || !errors.Is(ErrVerify, errdefs.ErrDataLoss) {
		t.Error("classes")
	}
}

// Writers who know nothing of each other lose no tag.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "layout")
	const writers, tags = 8, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			l, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range tags {
				if _, err := l.PutManifest(t.Context(), []byte("same"), "x/y", fmt.Sprint(w, "-", n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(index(t, dir).Manifests); got != writers*tags {
		t.Errorf("%d tags, want %d", got, writers*tags)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
