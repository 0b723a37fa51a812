//go:build linux

package convert_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer/convert"
)

func archive(t *testing.T, entries ...testkit.Entry) []byte {
	t.Helper()
	b, err := testkit.Tar(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func run(t *testing.T, tarball []byte, o convert.Options) (convert.Result, []byte) {
	t.Helper()
	var out bytes.Buffer
	o.Dir = t.TempDir()
	r, err := convert.Layer(t.Context(), bytes.NewReader(tarball), &out, o)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if d := digest.FromBytes(out.Bytes()); r.Desc.Digest != d || r.Desc.Size != int64(out.Len()) {
		t.Errorf("described as %s of %d bytes, wrote %s of %d", r.Desc.Digest, r.Desc.Size, d, out.Len())
	}
	inner := uncompress(t, out.Bytes())
	if d := digest.FromBytes(inner); r.DiffID != d || r.Tar != int64(len(inner)) {
		t.Errorf("diffID %s of %d bytes, the tar is %s of %d", r.DiffID, r.Tar, d, len(inner))
	}
	return r, out.Bytes()
}

func uncompress(t *testing.T, blob []byte) []byte {
	t.Helper()
	r, err := convert.Uncompress(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	inner, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return inner
}

// tocEntry is what both formats say of a path.
type tocEntry struct {
	Type, Name, LinkName   string
	Mode, Size             int64
	ModTime                time.Time
	Xattrs                 map[string][]byte
	Digest                 digest.Digest
	Offset, EndOffset      int64
	ChunkSize, ChunkOffset int64
	ChunkDigest            digest.Digest
	ChunkType              string
}

// zstdTOC reads the table of contents where the annotations say.
func zstdTOC(t *testing.T, r convert.Result, blob []byte) []tocEntry {
	t.Helper()
	const prefix = "io.github.containers.zstd-chunked."
	var off, n, raw, kind int64
	if _, err := fmt.Sscanf(r.Desc.Annotations[prefix+"manifest-position"], "%d:%d:%d:%d", &off, &n, &raw, &kind); err != nil {
		t.Fatal(err)
	}
	packed := blob[off:][:n]
	if got := digest.FromBytes(packed); string(got) != r.Desc.Annotations[prefix+"manifest-checksum"] {
		t.Errorf("table of contents has digest %s, annotations %v", got, r.Desc.Annotations)
	}
	text := unzstd(t, packed)
	var toc struct {
		Version        int
		Entries        []tocEntry
		TarSplitDigest digest.Digest
	}
	if err := json.Unmarshal(text, &toc); err != nil {
		t.Fatal(err)
	}
	if toc.Version != 1 || int64(len(text)) != raw || kind != 1 {
		t.Errorf("version %d, %d bytes, want %d, type %d", toc.Version, len(text), raw, kind)
	}
	if _, err := fmt.Sscanf(r.Desc.Annotations[prefix+"tarsplit-position"], "%d:%d:%d", &off, &n, &raw); err != nil {
		t.Fatal(err)
	}
	split := blob[off:][:n]
	if got := digest.FromBytes(split); got != toc.TarSplitDigest {
		t.Errorf("tar-split has digest %s, the table says %s", got, toc.TarSplitDigest)
	}
	if got := int64(len(unzstd(t, split))); got != raw {
		t.Errorf("tar-split has %d bytes, want %d", got, raw)
	}
	return toc.Entries
}

func unzstd(t *testing.T, packed []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p, err := d.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// zstdFiles reads every file by its chunks, and checks all digests.
func zstdFiles(t *testing.T, r convert.Result, blob []byte) map[string]string {
	t.Helper()
	entries := zstdTOC(t, r, blob)
	files := map[string]string{}
	for i := 0; i < len(entries); {
		e := entries[i]
		chunks := entries[i : i+1]
		for i++; i < len(entries) && entries[i].Type == "chunk"; i++ {
			chunks = append(chunks, entries[i])
		}
		if e.Type != "reg" {
			continue
		}
		var content []byte
		for j, c := range chunks {
			end, n := e.EndOffset, c.ChunkSize
			if j+1 < len(chunks) {
				end = chunks[j+1].Offset
			}
			if n == 0 {
				n = e.Size
			}
			var p []byte
			if c.ChunkType == "zeros" {
				p = make([]byte, n)
			} else {
				p = unzstd(t, blob[c.Offset:end])
			}
			if c.ChunkDigest != "" && digest.FromBytes(p) != c.ChunkDigest || int64(len(p)) != n || c.ChunkOffset != int64(len(content)) {
				t.Errorf("%s: chunk %d has %d bytes at %d, want %+v", e.Name, j, len(p), len(content), c)
			}
			content = append(content, p...)
		}
		if e.Size > 0 && digest.FromBytes(content) != e.Digest || int64(len(content)) != e.Size {
			t.Errorf("%s: %d bytes of %d, digest %s", e.Name, len(content), e.Size, e.Digest)
		}
		files[strings.TrimPrefix(strings.TrimPrefix(e.Name, "/"), "./")] = string(content)
	}
	return files
}

// stargzFiles opens the layer as stargz-snapshotter does and reads every file.
func stargzFiles(t *testing.T, r convert.Result, blob []byte) map[string]string {
	t.Helper()
	er, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := er.VerifyTOC(digest.Digest(r.Desc.Annotations[estargz.TOCJSONDigestAnnotation])); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	var walk func(dir string, e *estargz.TOCEntry)
	walk = func(dir string, e *estargz.TOCEntry) {
		e.ForeachChild(func(base string, c *estargz.TOCEntry) bool {
			name := dir + base
			switch c.Type {
			case "dir":
				walk(name+"/", c)
			case "reg":
				f, err := er.OpenFile(c.Name)
				if err != nil {
					t.Fatal(err)
				}
				p := make([]byte, c.Size)
				if _, err := f.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				if got := digest.FromBytes(p); c.Digest != "" && string(got) != c.Digest {
					t.Errorf("%s: digest %s, want %s", name, got, c.Digest)
				}
				files[name] = string(p)
			}
			return true
		})
	}
	root, ok := er.Lookup("")
	if !ok {
		t.Fatal("no root")
	}
	walk("", root)
	return files
}

func names(t *testing.T, blob []byte) []string {
	t.Helper()
	var out []string
	tr := tar.NewReader(bytes.NewReader(uncompress(t, blob)))
	for {
		h, err := tr.Next()
		if err != nil {
			return out
		}
		name := h.Name
		if h.Typeflag == tar.TypeLink || h.Typeflag == tar.TypeSymlink {
			name += " -> " + h.Linkname
		}
		out = append(out, name)
	}
}

func ours(name string) bool {
	return slices.Contains([]string{estargz.TOCTarName, estargz.PrefetchLandmark, estargz.NoPrefetchLandmark}, name)
}

// contents lists the sums of a tar's regular files; the last of a name counts.
func contents(t *testing.T, tarball []byte) map[string]string {
	t.Helper()
	sums := map[string]string{}
	tr := tar.NewReader(bytes.NewReader(tarball))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return sums
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(h.Name, "/"), "./")
		delete(sums, name)
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		sums[name] = fmt.Sprintf("%x", sum.Sum(nil))
	}
}
