//go:build linux

package sources

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	holes    = 4
	holeSize = 500_000_000 // bytes of each large file, which take no room on disk

	mountLimit = 90 * time.Second // for one pass over all bytes; ten times what it takes
	cacheLimit = 64 << 20         // bytes: indexes, but no layers
)

// TestLargeArchive mounts an archive of 2 GB: layers of Debian packages, and one
// of large files with little in them.
func TestLargeArchive(t *testing.T) {
	t.Parallel()
	s := testkit.Debian(t)[0]
	saved := filepath.Join(t.TempDir(), "large.tar")
	writeLarge(t, s, saved)
	if fi, err := os.Stat(saved); err != nil || fi.Size() < 2_000_000_000 {
		t.Fatalf("the archive has %d bytes, %v", fi.Size(), err)
	}
	p := testkit.NewPeel(t)
	start := time.Now()
	root := p.Mount("docker-archive:" + saved)
	t.Logf("mounted after %v", time.Since(start))
	if d := time.Since(start); d > mountLimit {
		t.Errorf("the mount took %v", d)
	}
	got := make([]byte, 1000)
	f, err := os.Open(filepath.Join(root, "large", "3"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got, holeSize-1000); err != nil || !bytes.Equal(got[:996], make([]byte, 996)) || string(got[996:]) != "end." {
		t.Errorf("the end of a large file: %q, %v", got, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	rows, err := testkit.List(filepath.Join(root, "usr"))
	if err != nil {
		t.Fatal(err)
	}
	var want []testkit.Row
	for _, r := range s.Expected {
		if name, ok := strings.CutPrefix(r.Path, "/usr"); ok && strings.HasPrefix(name+"/", "/") {
			r.Path = "/" + strings.TrimPrefix(name, "/")
			want = append(want, r)
		}
	}
	slices.SortFunc(want, func(a, b testkit.Row) int { return strings.Compare(a.Path, b.Path) })
	for _, d := range testkit.Differences(want, rows, testkit.Exact) {
		t.Error(d)
	}
	if n := diskUse(t, p.Cache); n > cacheLimit {
		t.Errorf("the cache has %d bytes: layers were copied", n)
	}
	if n := diskUse(t, p.Tmp); n > cacheLimit {
		t.Errorf("the temporary folder has %d bytes: layers were copied", n)
	}
	again := time.Now()
	p.Umount(root)
	p.Umount(p.Mount("docker-archive:" + saved))
	t.Logf("mounted again and unmounted after %v", time.Since(again))
}

// diskUse is what du says, bytes.
func diskUse(t *testing.T, dir string) int64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "du", "-s", "-B1", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// writeLarge writes the archive: the sample's layers as they are, and one with
// holes above them.
func writeLarge(t *testing.T, s testkit.Sample, name string) {
	t.Helper()
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(out)
	image := listed{RepoTags: []string{"large:latest"}}
	diffIDs := plainLayers(t, s)
	for _, d := range diffIDs {
		blob, err := os.ReadFile(filepath.Join(s.Layout, "blobs", "sha256", d.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		add(t, w, d.Encoded()+".tar", blob)
		image.Layers = append(image.Layers, d.Encoded()+".tar")
	}
	image.Layers = append(image.Layers, "holes.tar")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	diffIDs = append(diffIDs, writeHoles(t, out))
	w = tar.NewWriter(out)
	c := config(t, diffIDs...)
	image.Config = digest.FromBytes(c).Encoded() + ".json"
	add(t, w, image.Config, c)
	add(t, w, "manifest.json", document(t, []listed{image}))
	if err := errors.Join(w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, w *tar.Writer, name string, data []byte) {
	t.Helper()
	h := testkit.File(name, data).Header
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
}

// plainLayers are the layers of the sample's tag for plain tar, whose diffIDs
// are the digests of their blobs.
func plainLayers(t *testing.T, s testkit.Sample) []digest.Digest {
	t.Helper()
	read := func(name string, v any) {
		data, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	read(filepath.Join(s.Layout, "index.json"), &index)
	var out []digest.Digest
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] != string(testkit.PlainTar) {
			continue
		}
		var manifest ocispec.Manifest
		read(filepath.Join(s.Layout, "blobs", "sha256", m.Digest.Encoded()), &manifest)
		for _, l := range manifest.Layers {
			out = append(out, l.Digest)
		}
	}
	return out
}

// writeHoles adds the member holes.tar, a layer, without writing the zeros in
// it, and returns its digest. It leaves the file at the member's end.
func writeHoles(t *testing.T, out *os.File) digest.Digest {
	t.Helper()
	const padded = (holeSize + 511) / 512 * 512
	const size = 512 + holes*(512+padded) + 1024
	off, err := out.Seek(0, io.SeekCurrent)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte, skip int64) {
		if _, err := out.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
		off += int64(len(b)) + skip
	}
	put(header(t, tar.Header{Typeflag: tar.TypeReg, Name: "holes.tar", Size: size, Mode: 0o644}), 0)
	begin := off
	put(header(t, testkit.Dir("large").Header), 0)
	for i := range holes {
		put(header(t, tar.Header{Typeflag: tar.TypeReg, Name: "large/" + strconv.Itoa(i), Size: holeSize, Mode: 0o644, ModTime: testkit.Epoch}), holeSize-4)
		put([]byte("end."), padded-holeSize)
	}
	put(make([]byte, 1024), 0)
	if off != begin+size {
		t.Fatalf("the layer has %d bytes, meant to be %d", off-begin, size)
	}
	d, err := digest.FromReader(io.NewSectionReader(out, begin, size))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Seek(off, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return d
}

// header is the block of a member, in the plainest form.
func header(t *testing.T, h tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	h.Format = tar.FormatUSTAR
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
