//go:build linux

package reuse

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// packages are those of the layer that is built anew for the second version.
func packages(t *testing.T) []testkit.Entry {
	t.Helper()
	return testkit.Packages(t, "libpython3.11-stdlib", "libexpat1", "zlib1g", "perl-modules-5.36")
}

// newer returns the entries with those changed that belong to the newer package:
// every one has another time, is longer, and differs a little throughout.
func newer(entries []testkit.Entry, belongs func(name string) bool) (out []testkit.Entry, changed map[string]bool) {
	changed = map[string]bool{}
	for _, e := range entries {
		if e.Typeflag == tar.TypeReg && belongs(clean(e.Name)) {
			e.ModTime = e.ModTime.Add(1000 * 3600e9)
			e.Data = bytes.Clone(e.Data)
			for at := 0; at < len(e.Data); at += 4096 {
				e.Data[at] ^= 1
			}
			e.Data = append(e.Data, testkit.Noise(uint64(len(e.Data)), 1000)...)
			e.Size = int64(len(e.Data))
			changed[clean(e.Name)] = true
		}
		out = append(out, e)
	}
	return out, changed
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// compressed returns how many bytes of a layer's blob are the files' data.
func compressed(t *testing.T, l testkit.Layer, files map[string]bool) (n int64) {
	t.Helper()
	if at := l.Desc.Annotations["io.github.containers.zstd-chunked.manifest-position"]; at != "" {
		return compressedChunked(t, l, at, files)
	}
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(l.Blob), 0, int64(len(l.Blob))))
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		e, ok := r.Lookup(name)
		if !ok {
			t.Fatalf("%s is not in the table of contents", name)
		}
		n += e.NextOffset() - e.Offset
	}
	return n
}

// compressedChunked is compressed for zstd:chunked, whose table of contents is at
// "offset:length:…".
func compressedChunked(t *testing.T, l testkit.Layer, at string, files map[string]bool) (n int64) {
	t.Helper()
	var off, length int64
	if _, err := fmt.Sscanf(at, "%d:%d", &off, &length); err != nil {
		t.Fatal(err)
	}
	r, err := zstd.NewReader(bytes.NewReader(l.Blob[off:][:length]))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var toc struct {
		Entries []struct {
			Name, Type        string
			Offset, EndOffset int64
		}
	}
	if err := json.NewDecoder(r).Decode(&toc); err != nil {
		t.Fatal(err)
	}
	for _, e := range toc.Entries {
		if e.Type == "reg" && files[clean(e.Name)] {
			n += e.EndOffset - e.Offset
		}
	}
	return n
}

// readAll reads every file below root and compares those of entries.
func readAll(t *testing.T, root string, layers ...[]testkit.Entry) {
	t.Helper()
	want := map[string][]byte{}
	for _, entries := range layers {
		for _, e := range entries {
			delete(want, clean(e.Name))
			if e.Typeflag == tar.TypeReg {
				want[clean(e.Name)] = e.Data
			}
		}
	}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(name)
		if data, ok := want[rel]; ok && err == nil {
			if delete(want, rel); !bytes.Equal(got, data) {
				t.Errorf("%s: wrong bytes", rel)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Errorf("%d files are not there", len(want))
	}
}

// traffic is what a mount cost.
type traffic struct {
	documents int64 // bytes of manifests, configurations and lists
	tables    int64 // bytes of layers until it was mounted: tables of contents, and indexes
	data      int64 // bytes of layers afterwards
	requests  int
	reused    int64 // as peel ps says
}

// pass mounts an image, reads all of it and takes it away.
func pass(t *testing.T, p *testkit.Peel, proxy *testkit.Proxy, ref string, layers ...[]testkit.Entry) (tr traffic) {
	t.Helper()
	proxy.Log()
	root := p.Mount(ref)
	for _, r := range proxy.Log() {
		if tr.requests++; r.Blob() && r.Range != "" {
			tr.tables += r.Bytes
		} else {
			tr.documents += r.Bytes
		}
	}
	readAll(t, root, layers...)
	var status []struct {
		Mountpoint  string `json:"mountpoint"`
		BytesReused int64  `json:"bytes_reused"`
	}
	if err := json.Unmarshal([]byte(p.Must("ps", "--json").Stdout), &status); err != nil {
		t.Fatal(err)
	}
	for _, s := range status {
		if s.Mountpoint == root {
			tr.reused = s.BytesReused
		}
	}
	p.Umount(root)
	for _, r := range proxy.Log() {
		tr.requests++
		tr.data += r.Bytes
	}
	return tr
}

// deflated is a layer in one member, as docker writes it.
func deflated(t *testing.T, entries []testkit.Entry) testkit.Layer {
	t.Helper()
	archive, err := testkit.Tar(entries...)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return testkit.Layer{
		Desc:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(b.Bytes()), Size: int64(b.Len())},
		DiffID: digest.FromBytes(archive), Blob: b.Bytes(),
	}
}

// publish pushes an image.
func publish(t *testing.T, reg *testkit.Registry, tag string, layers ...testkit.Layer) ocispec.Descriptor {
	t.Helper()
	return reg.Publish(t, "re/use", tag, layers...)
}
