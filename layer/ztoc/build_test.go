package ztoc

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer/inflate"
)

// members compresses each part as a gzip member of its own, with everything
// that a header may have.
func members(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		w.Name, w.Comment, w.Extra = "layer.tar", "a comment", []byte("extra")
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// flushed has an empty block after every 10 000 bytes.
func flushed(t *testing.T, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for len(p) > 0 {
		n := min(len(p), 10_000)
		if _, err := w.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestBuild checks that a zTOC describes its layer: every span can be had from
// nothing but its own bytes, and every file from its spans.
func TestBuild(t *testing.T) {
	t.Parallel()
	archive := tarOf(t, entries())
	padded := append(bytes.Clone(archive), make([]byte, 300_000)...)
	plain := gzipOf(t, archive, 6)
	withCRC := append([]byte{0x1f, 0x8b, 8, 1 << 1}, plain[4:10]...)
	withCRC = binary.LittleEndian.AppendUint16(withCRC, uint16(crc32.ChecksumIEEE(withCRC)))
	withCRC = append(withCRC, plain[10:]...)
	tests := []struct {
		name     string
		blob     []byte
		content  []byte
		spanSize int64
		spans    int // at least
	}{
		{"gzip", plain, archive, 50_000, 10},
		{"stored", gzipOf(t, archive, 0), archive, 50_000, 10},
		{"huffman only", gzipOf(t, archive, gzip.HuffmanOnly), archive, 50_000, 10},
		{"one span", gzipOf(t, archive, 6), archive, 0, 1},
		{"every block", flushed(t, archive), archive, 1, 100},
		{"empty blocks", flushed(t, archive), archive, 25_000, 30},
		{"members", members(t, archive[:200_000], archive[200_000:200_001], nil, archive[200_001:]), archive, 50_000, 5},
		{"header with a checksum", withCRC, archive, 50_000, 10},
		{"padded", gzipOf(t, padded, 6), padded, 50_000, 10},
		{"padded with spans", flushed(t, padded), padded, 20_000, 40},
		{"tar", archive, archive, 50_000, 21},
		{"tar of whole spans", archive, archive, int64(len(archive)) / 512 * 512, 1},
		{"padded tar", padded, padded, 50_000, 27},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			toc := buildTOC(t, test.blob, test.spanSize)
			if len(toc.Spans) < test.spans || toc.CompressedSize != int64(len(test.blob)) {
				t.Errorf("%d spans in %d bytes", len(toc.Spans), toc.CompressedSize)
			}
			checkSpans(t, toc, test.blob, test.content)
			checkFiles(t, toc, test.content)
			raw, err := toc.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if d := same(toc, again); d != "" {
				t.Error(d)
			}
		})
	}
}

func checkSpans(t *testing.T, toc *TOC, blob, content []byte) {
	t.Helper()
	for i, s := range toc.Spans {
		raw := blob[s.Off : s.Off+s.CLen]
		if got := digest.FromBytes(raw); got != s.Digest {
			t.Fatalf("span %d has digest %v, not %v", i, got, s.Digest)
		}
		if i+1 < len(toc.Spans) && toc.Compression == Gzip && s.Len <= toc.SpanSize {
			t.Errorf("span %d has %d bytes", i, s.Len)
		}
		if toc.Compression == Gzip {
			z := inflate.NewReader(bytes.NewReader(blob))
			if i > 0 {
				at := inflate.Place{Bit: s.Bit(), Out: s.Out}
				z.Resume(bytes.NewReader(raw), at, s.Window)
			}
			raw = make([]byte, s.Len)
			if _, err := io.ReadFull(z, raw); err != nil {
				t.Fatalf("span %d: %v", i, err)
			}
		}
		if !bytes.Equal(raw, content[s.Out:s.Out+s.Len]) {
			t.Errorf("span %d has other content", i)
		}
	}
}

func checkFiles(t *testing.T, toc *TOC, content []byte) {
	t.Helper()
	var want []File
	types := map[byte]string{
		tar.TypeReg: "reg", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeLink: "hardlink",
		tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
	}
	for i, e := range entries() {
		f := File{
			Name: e.Name, Type: types[e.Typeflag], Size: e.Size, Linkname: e.Linkname, Mode: e.Mode,
			UID: uint32(e.Uid), GID: uint32(e.Gid), Uname: e.Uname, Gname: e.Gname,
			ModTime: e.ModTime, Devmajor: e.Devmajor, Devminor: e.Devminor, PAX: e.PAXRecords,
		}
		if f.PAX = maps.Clone(f.PAX); f.PAX != nil {
			f.PAX["mtime"] = "1700000000.123456789"
		}
		if i < len(toc.Files) {
			f.Offset = toc.Files[i].Offset
			if end := f.Offset + f.Size; !bytes.Equal(e.content, content[f.Offset:end]) {
				t.Errorf("%s is not at %d", f.Name, f.Offset)
			}
		}
		want = append(want, f)
	}
	if d := cmp.Diff(want, toc.Files); d != "" {
		t.Error(d)
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	global := tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}
	archive := tarOf(t, entries())
	blob := gzipOf(t, archive, 6)
	flipped := bytes.Clone(blob)
	flipped[len(flipped)-6] ^= 1
	foreign := tar.Header{Name: "x", Uid: -1, Format: tar.FormatGNU}
	sparse := tarOf(t, []entry{{tar.Header{Name: "x", PAXRecords: map[string]string{"XXX.sparse.x": "1"}}, nil}})
	sparse = bytes.Replace(sparse, []byte("XXX.sparse"), []byte("GNU.sparse"), 1)
	tests := []struct {
		name string
		blob []byte
		o    BuildOptions
		want error
		text string
	}{
		{"nothing", nil, BuildOptions{}, ErrFormat, "a layer of 0 bytes"},
		{"no tar", []byte(strings.Repeat("no tar", 200)), BuildOptions{}, ErrFormat, "entry 0"},
		{"no tar inside", gzipOf(t, text(3, 2000), 6), BuildOptions{}, ErrFormat, "entry 0"},
		{"cut tar", archive[:100_000], BuildOptions{}, io.ErrUnexpectedEOF, "entry 3"},
		{"cut gzip", blob[:100_000], BuildOptions{}, io.ErrUnexpectedEOF, ""},
		{"wrong checksum", flipped, BuildOptions{}, inflate.ErrFormat, "checksum"},
		{"garbage behind", append(bytes.Clone(blob), "garbage garbage"...), BuildOptions{}, inflate.ErrFormat, ""},
		{"global header", tarOf(t, []entry{{global, nil}}), BuildOptions{}, ErrFormat, "type 'g'"},
		{"negative owner", tarOf(t, []entry{{foreign, nil}}), BuildOptions{}, ErrFormat, "owner -1:0"},
		{"sparse", sparse, BuildOptions{}, ErrFormat, "sparse"},
		{"negative span size", blob, BuildOptions{SpanSize: -1}, ErrFormat, "span size"},
		{"large span size", blob, BuildOptions{SpanSize: maxSpan + 1}, ErrFormat, "span size"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := Build(t.Context(), bytes.NewReader(test.blob), test.o)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestBuildSource checks that a layer's source is heard, at any place.
func TestBuildSource(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	archive := tarOf(t, entries())
	for _, blob := range [][]byte{archive, gzipOf(t, archive, 6)} {
		for n := 0; n < len(blob); n += 9973 {
			r := io.MultiReader(bytes.NewReader(blob[:n]), iotest.ErrReader(broken))
			if _, err := Build(t.Context(), r, BuildOptions{SpanSize: 50_000}); !errors.Is(err, broken) {
				t.Fatalf("after %d of %d bytes: %v", n, len(blob), err)
			}
		}
		want := buildTOC(t, blob, 50_000)
		got, err := Build(t.Context(), iotest.OneByteReader(bytes.NewReader(blob)), BuildOptions{SpanSize: 50_000, BuildTool: "peel"})
		if err != nil {
			t.Fatal(err)
		}
		if d := same(want, got); d != "" {
			t.Error(d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Build(ctx, bytes.NewReader(blob), BuildOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	}
}
