package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blob is a Source in memory that counts what is asked of it.
type blob struct {
	bytes    []byte
	requests atomic.Int64
	sent     atomic.Int64
}

func (b *blob) Size() int64 { return int64(len(b.bytes)) }

func (b *blob) ReadRange(_ context.Context, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n <= 0 || off+n > b.Size() {
		return nil, errors.New("range outside the blob")
	}
	b.requests.Add(1)
	b.sent.Add(n)
	return io.NopCloser(bytes.NewReader(b.bytes[off:][:n])), nil
}

// stage is a Stage in memory.
type stage struct {
	bytes.Buffer
	size  int64
	spans int
	done  bool
}

func (s *stage) Commit(size int64, spans int) error {
	s.size, s.spans, s.done = size, spans, true
	return nil
}

func (s *stage) Close() error { return nil }

func descriptor(b []byte, mediaType string, annotations map[string]string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b)), Annotations: annotations}
}

const (
	mediaTar  = "application/vnd.oci.image.layer.v1.tar"
	mediaGzip = mediaTar + "+gzip"
	mediaZstd = mediaTar + "+zstd"
)

// addresses returns the layer's whole address space, decoded span by span or
// by streaming, each verified.
func addresses(t testing.TB, x *Index, b *blob) []byte {
	t.Helper()
	space := make([]byte, x.Info.AddrSize)
	if !x.seekable() {
		err := x.restream(context.Background(), b, func(i int, addr int64, data []byte) error {
			if s := x.Spans[i]; addr != s.Addr || int64(len(data)) != s.Len {
				t.Errorf("span %d visited with %d bytes at %d", i, len(data), addr)
			}
			copy(space[addr:], data)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return space
	}
	for i, s := range x.Spans {
		if err := x.decodeSpan(i, b.bytes[s.Off:][:s.CLen], space[s.Addr:][:s.Len]); err != nil {
			t.Fatal(err)
		}
	}
	return space
}

// content returns a file's bytes.
func content(x *Index, in Inode, space []byte) []byte {
	p := make([]byte, in.Size)
	if in.Extents.Count == 0 {
		copy(p, space[in.Addr:][:in.Size])
	}
	for _, e := range x.Extents[in.Extents.First:][:in.Extents.Count] {
		copy(p[e.Off:][:e.Len], space[e.Addr:])
	}
	return p
}

// files maps each path of a layer to its inode.
func files(x *Index) map[string]Inode {
	found := map[string]Inode{"/": x.Inodes[0]}
	var walk func(row uint32, path string)
	walk = func(row uint32, path string) {
		r := x.Inodes[row].Children
		for _, e := range x.Entries[r.First:][:r.Count] {
			if e.Kind == EntryInode {
				found[path+"/"+x.Name(e)] = x.Inodes[e.Inode]
				walk(e.Inode, path+"/"+x.Name(e))
			}
		}
	}
	walk(0, "")
	return found
}

func hexSum(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// tarball is a tar with something of everything.
func tarball(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h *tar.Header, data []byte) {
		h.Size, h.Format = int64(len(data)), tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(&tar.Header{Name: "d/small", Mode: 0o4644, Uid: 3000000, Gid: 7}, []byte("small"))
	add(&tar.Header{Name: "d/empty", Mode: 0o600}, nil)
	add(&tar.Header{Name: "d/big", Mode: 0o600}, noise(1<<20+5, 1))
	add(&tar.Header{Name: "d/text", Mode: 0o600}, bytes.Repeat([]byte("all work and no play\n"), 20000))
	add(&tar.Header{Name: "d/block", Mode: 0o600}, noise(512, 2))
	add(&tar.Header{Name: "d/xattr", Mode: 0o600, PAXRecords: map[string]string{"SCHILY.xattr.user.nul": "a\x00b"}}, []byte("x"))
	add(&tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d/small"}, nil)
	add(&tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/small"}, nil)
	add(&tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil)
	add(&tar.Header{Name: "gone/.wh.x", Mode: 0o600}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(n int, seed byte) []byte {
	out := make([]byte, 0, n+sha256.Size)
	sum := sha256.Sum256([]byte{seed})
	for len(out) < n {
		sum = sha256.Sum256(sum[:])
		out = append(out, sum[:]...)
	}
	return slices.Clip(out[:n])
}

// tarOf returns a tar of one file.
func tarOf(t testing.TB, name, data string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// reside takes away what makes the spans of a streamed layer fetchable.
func reside(x *Index) {
	x.Checkpoints = nil
	for i := range x.Spans {
		x.Spans[i].Off, x.Spans[i].CLen = 0, x.Info.BlobSize
	}
}
