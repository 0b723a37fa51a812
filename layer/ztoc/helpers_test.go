package ztoc

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// vectors are what other tools made.
const vectors = "../../../shared/vectors/tricky"

// noVectors is true, and says so, where the project stands alone. .ci/run sees
// to it that it does not.
func noVectors(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat(vectors)
	if err != nil {
		t.Logf("no vectors here (%v): the generated layers of other tests must do", err)
	}
	return err != nil
}

func readVector(t *testing.T, d digest.Digest) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(vectors, "blobs", d.Algorithm().String(), d.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readVectorJSON(t *testing.T, p []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(p, to); err != nil {
		t.Fatal(err)
	}
}

// vectorTag is the descriptor of a tag of the vectors.
func vectorTag(t *testing.T, tag string) ocispec.Descriptor {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(vectors, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	readVectorJSON(t, p, &index)
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			return d
		}
	}
	t.Fatalf("no tag %s in the vectors", tag)
	return ocispec.Descriptor{}
}

// text is n bytes that compress about as programs do, the same for equal seeds.
func text(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, 0, n+64)
	for len(p) < n {
		if len(p) > 64 && rnd.IntN(3) > 0 {
			at := rnd.IntN(len(p) - 32)
			if back := 60_000; len(p) > back {
				at = len(p) - back + rnd.IntN(back-32)
			}
			p = append(p, p[at:at+3+rnd.IntN(29)]...)
			continue
		}
		p = append(p, byte(rnd.IntN(256)))
	}
	return p[:n]
}

// entry is a member of a tar in tests.
type entry struct {
	tar.Header
	content []byte
}

// entries are of every type that a zTOC knows.
func entries() []entry {
	at := time.Unix(1_700_000_000, 0)
	file := func(name string, content []byte) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: at}, content}
	}
	big := file("usr/bin/big", text(1, 700_000))
	big.Uid, big.Gid, big.Uname, big.Gname, big.Mode = 1000, 1001, "user", "group", 0o4755
	attr := file("etc/attr", []byte("value"))
	attr.ModTime, attr.Format = time.Unix(1_700_000_000, 123456789), tar.FormatPAX
	attr.PAXRecords = map[string]string{"SCHILY.xattr.user.b": "\x00\xff", "SCHILY.xattr.user.a": "first"}
	return []entry{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at}, nil},
		attr,
		big,
		file("empty", nil),
		{tar.Header{Name: "link", Linkname: "usr/bin/big", Typeflag: tar.TypeLink, ModTime: at}, nil},
		{tar.Header{Name: "sym", Linkname: "../x", Typeflag: tar.TypeSymlink, Mode: 0o777, ModTime: at}, nil},
		{tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, ModTime: at}, nil},
		{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 1, ModTime: at}, nil},
		{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, ModTime: at}, nil},
		file("last", text(2, 300_001)),
	}
}

func tarOf(t testing.TB, members []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range members {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, p []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func buildTOC(t testing.TB, blob []byte, spanSize int64) *TOC {
	t.Helper()
	toc, err := Build(t.Context(), bytes.NewReader(blob), BuildOptions{SpanSize: spanSize, BuildTool: "peel"})
	if err != nil {
		t.Fatal(err)
	}
	return toc
}

// same compares windows as a whole, which cmp does byte by byte.
func same(x, y any) string { return cmp.Diff(x, y, cmp.Comparer(bytes.Equal)) }
