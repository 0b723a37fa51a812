package local

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/distribution/reference"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/peelfs/peel/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t testing.TB, s string) manifest.Reference {
	t.Helper()
	ref, err := manifest.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// source opens s until the test is over.
func source(t testing.TB, s string) *Source {
	t.Helper()
	src, err := Open(t.Context(), parse(t, s), Options{Tmp: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return src
}

// failure is the error of opening s.
func failure(t testing.TB, s string) error {
	t.Helper()
	src, err := Open(t.Context(), parse(t, s), Options{Tmp: t.TempDir()})
	if err == nil {
		t.Fatalf("%s was opened, %v", s, src.Close())
	}
	return err
}

// image resolves what s names for amd64, reads all of it and compares every
// digest.
func image(t testing.TB, s string) (*manifest.Image, *manifest.Config) {
	t.Helper()
	src, ref := source(t, s), parse(t, s)
	img, err := manifest.Resolve(t.Context(), src, ref, ocispec.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	config, err := manifest.LoadConfig(t.Context(), src, img)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range img.Layers {
		p := whole(t, src.Open(ref.Named(), l))
		if got := digest.FromBytes(p); got != l.Digest {
			t.Errorf("layer %d has digest %s, want %s", i, got, l.Digest)
		}
		if ids := config.DiffIDs(); len(ids) > 0 && digest.FromBytes(tarOf(t, p)) != ids[i] {
			t.Errorf("layer %d has not the diffID %s", i, ids[i])
		}
	}
	return img, config
}

// whole reads a blob in one range, and its middle again at random.
func whole(t testing.TB, b *Blob) []byte {
	t.Helper()
	r, err := b.ReadRange(t.Context(), 0, b.Size())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	off := b.Size() / 3
	q := make([]byte, b.Size()/2-off)
	if _, err := b.ReadAt(q, off); err != nil || !bytes.Equal(q, p[off:off+int64(len(q))]) {
		t.Errorf("%d bytes at %d differ: %v", len(q), off, err)
	}
	return p
}

// tarOf decompresses p if need be.
func tarOf(t testing.TB, p []byte) []byte {
	t.Helper()
	how, err := compressionOf(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	r, err := decompress(bytes.NewReader(p), how)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func gz(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(p, nil)
}

// entry is a member of an archive: a file, or a link if there is a type.
type entry struct {
	name, content string
	link          byte
}

// pack writes a tar.
func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Typeflag: tar.TypeReg}
		if e.link != 0 {
			h.Typeflag, h.Linkname, h.Size, e.content = e.link, e.content, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// save writes p to a file of its own.
func save(t testing.TB, p []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, p, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// untar writes a tar's files and links to a folder of their own.
func untar(t testing.TB, p []byte) string {
	t.Helper()
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(p))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		err = os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil || h.Typeflag == tar.TypeDir:
		case h.Typeflag == tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case h.Typeflag == tar.TypeLink:
			err = os.Link(filepath.Join(dir, h.Linkname), path)
		default:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// layerOf is the tar of a layer with one file.
func layerOf(t testing.TB, content string) string {
	return string(pack(t, entry{name: "etc/file", content: content}))
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// configFor is a configuration of layers with these tars.
func configFor(t testing.TB, tars ...string) string {
	t.Helper()
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	c.RootFS.Type = "layers"
	for _, p := range tars {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromString(p))
	}
	return encoded(t, c)
}

// saved is an element of manifest.json.
type saved struct {
	Config       string
	RepoTags     []string
	Layers       []string
	LayerSources map[digest.Digest]ocispec.Descriptor `json:",omitempty"`
}

// single are the members of an archive with one image of one layer.
func single(t testing.TB, layer string) []entry {
	return []entry{
		{name: "layer.tar", content: layer},
		{name: "config.json", content: configFor(t, layer)},
		{name: manifestFile, content: encoded(t, []saved{{Config: "config.json", RepoTags: []string{"a:1"}, Layers: []string{"layer.tar"}}})},
	}
}

func idOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// vectors is the folder with what other tools made; false without it.
func vectors(t testing.TB) (string, bool) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "vectors"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root); err != nil {
		t.Logf("no vectors here (%v): the generated images of other tests must do", err)
		return "", false
	}
	return root, true
}

func skopeoCopy(t testing.TB, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "skopeo", append([]string{"--insecure-policy", "copy", "--quiet"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// blobsOf are the digests of layers.
func blobsOf(img *manifest.Image) []digest.Digest {
	var all []digest.Digest
	for _, l := range img.Layers {
		all = append(all, l.Digest)
	}
	return all
}

func digested(ref manifest.Reference, d digest.Digest) (reference.Canonical, error) {
	return reference.WithDigest(reference.TrimNamed(ref.Named()), d)
}
