package dockersave

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is a layer in three forms, and what belongs to it.
type image struct {
	config   []byte
	layers   []ocispec.Descriptor
	diffIDs  []digest.Digest
	content  map[digest.Digest][]byte
	manifest []byte
}

func build(t *testing.T) image {
	t.Helper()
	i := image{content: map[digest.Digest][]byte{}}
	zipped, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, pack := range []func([]byte) []byte{
		func(b []byte) []byte { return b },
		func(b []byte) []byte {
			var buf bytes.Buffer
			w := gzip.NewWriter(&buf)
			if _, err := w.Write(b); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			return buf.Bytes()
		},
		func(b []byte) []byte { return zipped.EncodeAll(b, nil) },
	} {
		archive := bytes.Repeat([]byte{0}, 1024*(n+1)) // empty tars of several lengths
		blob := pack(archive)
		i.layers = append(i.layers, i.add([]string{
			ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		}[n], blob))
		i.diffIDs = append(i.diffIDs, digest.FromBytes(archive))
	}
	i.config = mustJSON(t, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: i.diffIDs},
	})
	i.manifest = mustJSON(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: i.add(ocispec.MediaTypeImageConfig, i.config), Layers: i.layers,
	})
	return i
}

func (i *image) add(mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	i.content[d.Digest] = b
	return d
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func names(t *testing.T, list ...string) []reference.NamedTagged {
	t.Helper()
	var out []reference.NamedTagged
	for _, s := range list {
		named, err := reference.ParseNormalizedNamed(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, named.(reference.NamedTagged))
	}
	return out
}

// archive writes an archive of all of i's layers.
func (i *image) archive(t *testing.T, w io.Writer, list ...string) {
	t.Helper()
	a := NewArchive(w)
	for _, d := range i.layers {
		if a.Has(d.Digest) {
			t.Errorf("%s is there already", d.Digest)
		}
		if err := a.Layer(t.Context(), d, bytes.NewReader(i.content[d.Digest])); err != nil || !a.Has(d.Digest) {
			t.Fatal(err)
		}
	}
	for _, name := range list {
		if err := a.Image(Image{i.config, i.layers, i.diffIDs, names(t, name)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func entries(t *testing.T, r io.Reader) (list []string, content map[string][]byte) {
	t.Helper()
	content = map[string][]byte{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return list, content
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h.Name)
		if content[h.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	i := build(t)
	var buf, again bytes.Buffer
	i.archive(t, &buf, "alpine:3", "ghcr.io/a/b:c")
	i.archive(t, &again, "alpine:3", "ghcr.io/a/b:c")
	if !bytes.Equal(buf.Bytes(), again.Bytes()) {
		t.Error("two archives of one image differ")
	}
	list, content := entries(t, &buf)
	hex := func(n int) string { return i.layers[n].Digest.Encoded() }
	config := digest.FromBytes(i.config).Encoded() + ".json"
	if d := cmp.Diff([]string{hex(0) + ".tar", hex(1) + ".tar.gz", hex(2) + ".tar.zst", config, "manifest.json", "repositories"}, list); d != "" {
		t.Error(d)
	}
	for n, name := range list[:3] {
		if !bytes.Equal(content[name], i.content[i.layers[n].Digest]) {
			t.Errorf("%s has other bytes", name)
		}
	}
	want := []archived{{Config: config, RepoTags: []string{"alpine:3", "ghcr.io/a/b:c"}, Layers: list[:3]}}
	var got []archived
	if err := json.Unmarshal(content["manifest.json"], &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if want := `{"alpine":{"3":"` + hex(2) + `"},"ghcr.io/a/b":{"c":"` + hex(2) + `"}}`; string(content["repositories"]) != want {
		t.Errorf("repositories %s", content["repositories"])
	}
}

// Layers and configurations that images share are there once, and a name is
// that of the image that got it last.
func TestArchiveOfSeveral(t *testing.T) {
	t.Parallel()
	i := build(t)
	var buf bytes.Buffer
	a := NewArchive(&buf)
	d := i.layers[1]
	foreign := i.layers[0]
	foreign.URLs = []string{"https://example.com/layer"}
	if err := a.Layer(t.Context(), d, bytes.NewReader(i.content[d.Digest])); err != nil {
		t.Fatal(err)
	}
	for _, m := range []Image{
		{[]byte("1"), []ocispec.Descriptor{d}, i.diffIDs[:1], names(t, "a:1", "b:1")},
		{[]byte("2"), []ocispec.Descriptor{d, d}, i.diffIDs[:2], names(t, "a:1")},
		{[]byte("1"), []ocispec.Descriptor{d}, i.diffIDs[:1], names(t, "c:1")},
		{[]byte("3"), []ocispec.Descriptor{foreign}, i.diffIDs[:1], nil},
		{[]byte("4"), nil, nil, names(t, "d:1")},
	} {
		if err := a.Image(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Image(Image{[]byte("5"), i.layers, nil, nil}); err == nil {
		t.Error("an image without diffIDs")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	_, content := entries(t, &buf)
	var got []archived
	if err := json.Unmarshal(content["manifest.json"], &got); err != nil {
		t.Fatal(err)
	}
	config := func(s string) string { return digest.FromString(s).Encoded() + ".json" }
	name := d.Digest.Encoded() + ".tar.gz"
	want := []archived{
		{Config: config("1"), RepoTags: []string{"b:1", "c:1"}, Layers: []string{name}},
		{Config: config("2"), RepoTags: []string{"a:1"}, Layers: []string{name, name}},
		{
			Config: config("3"), Layers: []string{foreign.Digest.Encoded() + ".tar"},
			LayerSources: map[digest.Digest]ocispec.Descriptor{i.diffIDs[0]: foreign},
		},
		{Config: config("4"), RepoTags: []string{"d:1"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestOCIArchive(t *testing.T) {
	t.Parallel()
	i := build(t)
	var buf bytes.Buffer
	a := NewOCIArchive(&buf)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(i.manifest), Size: int64(len(i.manifest))}
	for _, b := range append([]ocispec.Descriptor{{Digest: digest.FromBytes(i.config), Size: int64(len(i.config))}}, i.layers...) {
		if err := a.Blob(t.Context(), b, bytes.NewReader(i.content[b.Digest])); err != nil || !a.Has(b.Digest) {
			t.Fatal(err)
		}
	}
	for _, ref := range []string{"", "v1", "v2", "v1", ""} {
		if err := a.Manifest(t.Context(), d, i.manifest, ref); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Blob(t.Context(), ocispec.Descriptor{Digest: "sha256:../../x"}, nil); err == nil {
		t.Error("a blob without a digest was written")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(file, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	list, content := entries(t, &buf)
	if slices.Sort(list); len(slices.Compact(list)) != len(content) || len(content) != 7 {
		t.Errorf("entries %q", list)
	}
	var index ocispec.Index
	if err := json.Unmarshal(content["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, m := range index.Manifests {
		refs = append(refs, m.Annotations[ocispec.AnnotationRefName])
	}
	if d := cmp.Diff([]string{"v2", "v1", ""}, refs); d != "" {
		t.Error(d)
	}
	skopeoReads(t, "oci-archive:"+file+":v1", i.manifest)
}

func TestDir(t *testing.T) {
	t.Parallel()
	i := build(t)
	path := t.TempDir()
	d := NewDir(path)
	for sum, b := range i.content {
		if err := d.Blob(t.Context(), ocispec.Descriptor{Digest: sum, Size: int64(len(b))}, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Blob(t.Context(), ocispec.Descriptor{Digest: "sha256:../../x"}, nil); err == nil {
		t.Error("a blob without a digest was written")
	}
	if err := d.Manifest(i.manifest); err != nil {
		t.Fatal(err)
	}
	if err := d.Manifest(i.manifest); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second manifest: %v", err)
	}
	skopeoReads(t, "dir:"+path, i.manifest)
}

// TestSkopeoReadsArchive: the configuration, and with it all diffIDs, are what
// skopeo finds, which unpacks the layers to compare.
func TestSkopeoReadsArchive(t *testing.T) {
	t.Parallel()
	i := build(t)
	file := filepath.Join(t.TempDir(), "archive.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	i.archive(t, f, "alpine:3", "ghcr.io/a/b:c")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ":alpine:3", ":ghcr.io/a/b:c", ":@0"} {
		to := filepath.Join(t.TempDir(), "copy")
		skopeo(t, "copy", "docker-archive:"+file+name, "dir:"+to)
		if got, err := os.ReadFile(filepath.Join(to, digest.FromBytes(i.config).Encoded())); err != nil || !bytes.Equal(got, i.config) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func skopeoReads(t *testing.T, ref string, manifest []byte) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	skopeo(t, "copy", "--preserve-digests", ref, "dir:"+to)
	if got, err := os.ReadFile(filepath.Join(to, "manifest.json")); err != nil || !bytes.Equal(got, manifest) {
		t.Errorf("%s: %q, %v", ref, got, err)
	}
}

func skopeo(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), path, append([]string{"--insecure-policy"}, args...)...).CombinedOutput(); err != nil {
		t.Errorf("skopeo %q: %v\n%s", args, err, out)
	}
}

func TestBlobsRefused(t *testing.T) {
	t.Parallel()
	content := "content"
	d := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken")
	for _, tc := range []struct {
		name string
		ctx  context.Context
		desc ocispec.Descriptor
		r    io.Reader
		want error
	}{
		{"other bytes", t.Context(), d, strings.NewReader("CONTENT"), ErrVerify},
		{"short", t.Context(), d, strings.NewReader("conten"), ErrVerify},
		{"long", t.Context(), d, strings.NewReader("content!"), ErrVerify},
		{"broken", t.Context(), d, io.MultiReader(strings.NewReader("con"), failing{broken}), broken},
		{"cancelled", cancelled, d, strings.NewReader(content), context.Canceled},
		{"no digest", t.Context(), ocispec.Descriptor{Digest: "x", Size: 7}, strings.NewReader(content), digest.ErrDigestInvalidFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := NewDir(t.TempDir()).Blob(tc.ctx, tc.desc, tc.r); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if err := NewArchive(io.Discard).Layer(t.Context(), d, strings.NewReader("CONTENT")); !errors.Is(err, ErrVerify) || !strings.Contains(err.Error(), d.Digest.String()) {
		t.Errorf("archive: %v", err)
	}
	if err := NewOCIArchive(io.Discard).Blob(t.Context(), d, strings.NewReader("CONTENT")); !errors.Is(err, ErrVerify) {
		t.Errorf("OCI archive: %v", err)
	}
}

// What failed can be tried again, and leaves no trace.
func TestBlobsAgain(t *testing.T) {
	t.Parallel()
	i := build(t)
	d := i.layers[1]
	wrong := bytes.ToUpper(i.content[d.Digest])
	wrong[len(wrong)-1] ^= 1
	var want bytes.Buffer
	i.archive(t, &want, "alpine:3")
	f, err := os.Create(filepath.Join(t.TempDir(), "archive.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, dir := NewArchive(f), NewDir(t.TempDir())
	for _, layer := range i.layers {
		for _, content := range [][]byte{wrong, wrong[:3], nil} {
			if err := a.Layer(t.Context(), layer, bytes.NewReader(content)); !errors.Is(err, ErrVerify) || a.Has(layer.Digest) {
				t.Errorf("wrong bytes: %v", err)
			}
			if err := dir.Blob(t.Context(), layer, bytes.NewReader(content)); !errors.Is(err, ErrVerify) {
				t.Errorf("wrong bytes: %v", err)
			}
		}
		if err := a.Layer(t.Context(), layer, bytes.NewReader(i.content[layer.Digest])); err != nil {
			t.Fatal(err)
		}
		if err := dir.Blob(t.Context(), layer, bytes.NewReader(i.content[layer.Digest])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.Image(Image{i.config, i.layers, i.diffIDs, names(t, "alpine:3")}), a.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d bytes, want %d: %v", len(got), want.Len(), err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
