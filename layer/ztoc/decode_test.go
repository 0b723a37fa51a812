package ztoc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	flatbuffers "github.com/google/flatbuffers/go"
	"github.com/opencontainers/go-digest"
)

// valid is a small TOC of a gzip layer with three spans.
func valid() *TOC {
	d := digest.FromString("span")
	w := bytes.Repeat([]byte("window.."), WindowSize/8)
	return &TOC{
		Version: "0.9", BuildTool: "tool", CompressedSize: 1000, UncompressedSize: 4096, Compression: Gzip, SpanSize: 1000,
		Files: []File{
			{Name: "a", Type: TypeReg, Offset: 512, Size: 513, Mode: 0o644, ModTime: time.Unix(1, 0).UTC()},
			{Name: "b", Type: TypeSymlink, Offset: 2048, Size: 77, Linkname: "a", PAX: map[string]string{"k": "v"}},
			{Name: "c", Type: TypeReg, Offset: 2560, Size: 512},
		},
		Spans: []Span{
			{Digest: d, Off: 10, CLen: 291, Len: 1100},
			{Digest: d, Off: 300, CLen: 200, Out: 1100, Len: 1400, Bits: 3, Window: w},
			{Digest: d, Off: 500, CLen: 500, Out: 2500, Len: 1596, Window: w},
		},
	}
}

// TestDecodeRefuses changes one thing of a good zTOC at a time.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*TOC)
		text   string
	}{
		{"no layer", func(x *TOC) { x.CompressedSize = 0 }, "a layer of 0 bytes"},
		{"negative layer", func(x *TOC) { x.CompressedSize = -1 }, "a layer of -1 bytes"},
		{"huge layer", func(x *TOC) { x.CompressedSize = maxArchive + 1 }, "a layer of"},
		{"negative archive", func(x *TOC) { x.UncompressedSize = -1; x.Files = nil }, "an archive of"},
		{"huge archive", func(x *TOC) { x.UncompressedSize = maxArchive + 1 }, "an archive of"},
		{"negative span size", func(x *TOC) { x.SpanSize = -1 }, "a span size of"},
		{"short layer", func(x *TOC) { x.CompressedSize = 400 }, "span 2: it is from"},
		{"short archive", func(x *TOC) { x.UncompressedSize = 2400; x.Files = x.Files[:1] }, "span 2: it is from"},
		{"no digest", func(x *TOC) { x.Spans[1].Digest = "" }, "span 1: digest"},
		{"other digest", func(x *TOC) { x.Spans[1].Digest = digest.Digest("sha512:" + strings.Repeat("0", 128)) }, "span 1: digest"},
		{"short digest", func(x *TOC) { x.Spans[1].Digest = x.Spans[1].Digest[:20] }, "span 1: digest"},
		{"before the header's end", func(x *TOC) { x.Spans[0].Off = 9 }, "span 0: it begins at 9:0"},
		{"first with bits", func(x *TOC) { x.Spans[0].Bits = 1 }, "span 0: it begins at"},
		{"first in the middle", func(x *TOC) { x.Spans[0].Out = 5 }, "span 0: it begins at"},
		{"too many bits", func(x *TOC) { x.Spans[1].Bits = 8 }, "span 1: it begins with 8 bits"},
		{"falling in the blob", func(x *TOC) { x.Spans[1].Off, x.Spans[2].Off = 500, 300 }, "span 1: it is from"},
		{"falling in the archive", func(x *TOC) { x.Spans[1].Out, x.Spans[2].Out = 2500, 1100 }, "span 1: it is from"},
		{"the same bit twice", func(x *TOC) { x.Spans[1].Off, x.Spans[1].Bits = 500, 0 }, "span 1: it is from"},
		{"falling by bits", func(x *TOC) { x.Spans[2].Off, x.Spans[2].Bits = 300, 5 }, "span 2: it begins at bit"},
		{"negative in the blob", func(x *TOC) { x.Spans[1].Off = -1 }, "span "},
		{"far in the blob", func(x *TOC) { x.Spans[1].Off = 1<<63 - 2 }, "span "},
		{"negative in the archive", func(x *TOC) { x.Spans[1].Out = -1 << 63 }, "span "},
		{"far in the archive", func(x *TOC) { x.Spans[1].Out = 1<<63 - 1 }, "span "},
		{"long span", func(x *TOC) { x.CompressedSize += maxSpan }, "span 2: it is"},
		{"long span of the archive", func(x *TOC) { x.UncompressedSize += maxSpan }, "span 2: it is"},
		{"unknown compression", func(x *TOC) { x.Compression = 3 }, "unknown compression 3"},
		{"checkpoints of another kind", func(x *TOC) { x.Compression = Uncompressed }, "checkpoints"},
		{"unknown type", func(x *TOC) { x.Files[0].Type = "file" }, `unknown type "file"`},
		{"content in the header", func(x *TOC) { x.Files[0].Offset = 511 }, `entry 0, "a": content is at 511`},
		{"negative content", func(x *TOC) { x.Files[0].Offset = -512 }, "content is at"},
		{"content of negative size", func(x *TOC) { x.Files[0].Size = -1 }, "content is at"},
		{"content of huge size", func(x *TOC) { x.Files[2].Size = 1<<63 - 1 }, "content is at"},
		{"content beyond the end", func(x *TOC) { x.Files[2].Size = 1537 }, "content is at"},
		{"content twice", func(x *TOC) { x.Files[1].Offset = 2047 }, `entry 1, "b": content is at 2047`},
		{"falling contents", func(x *TOC) { slices.Reverse(x.Files) }, "content is at"},
		{"time of no year", func(x *TOC) { x.Files[0].ModTime = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) }, "time"},
		{"sparse", func(x *TOC) { x.Files[0].PAX = map[string]string{"GNU.sparse.size": "1"} }, "sparse"},
	}
	if _, err := Decode(valid().encode()); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			x := valid()
			test.change(x)
			_, err := Decode(x.encode())
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v", err)
			}
			if n := strings.Count(err.Error(), ErrFormat.Error()); n != 1 {
				t.Errorf("it says %d times what it is: %v", n, err)
			}
		})
	}
}

// TestEncodeRefuses checks that nothing is written that would not be read.
func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*TOC)
		text   string
	}{
		{"no spans", func(x *TOC) { x.Spans = nil }, "0 spans"},
		{"lengths of spans", func(x *TOC) { x.Spans[1].CLen-- }, "span 1: it ends at"},
		{"lengths in the archive", func(x *TOC) { x.Spans[0].Len++ }, "span 0: it ends at"},
		{"a window that is too long", func(x *TOC) { x.Spans[1].Window = make([]byte, WindowSize+1) }, "a window of"},
		{"no window", func(x *TOC) { x.Spans[1].Window = nil }, "a window of 0 bytes at 1100"},
		{"window at the beginning", func(x *TOC) { x.Spans[0].Window = []byte{1} }, "a window of 1 bytes at 0"},
		{"overlapping files", func(x *TOC) { x.Files[0].Size = 2000 }, `entry 1, "b"`},
		{"long extended headers", func(x *TOC) {
			x.Files[0].PAX = map[string]string{}
			value := strings.Repeat("x", 16<<20)
			for i := range 33 {
				x.Files[0].PAX[string(rune('a'+i))] = value
			}
		}, "more than"},
		{"a tar that is not cut evenly", func(x *TOC) {
			x.Compression, x.UncompressedSize = Uncompressed, 1000
			x.Files = x.Files[:0]
		}, "span 0: it is from 10"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			x := valid()
			test.change(x)
			if _, err := x.Encode(); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestEncodeShortWindow: what is missing of a window is zeros in front.
func TestEncodeShortWindow(t *testing.T) {
	t.Parallel()
	x := valid()
	x.Spans[1].Window = []byte("short")
	raw, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := append(make([]byte, WindowSize-5), "short"...)
	if !bytes.Equal(again.Spans[1].Window, want) {
		t.Error("another window")
	}
}

// small are zTOCs of both compressions.
func small(t testing.TB) map[string][]byte {
	t.Helper()
	archive := tarOf(t, entries())
	return map[string][]byte{
		"gzip": buildTOC(t, gzipOf(t, archive, 6), 400_000).encode(),
		"tar":  buildTOC(t, archive, 100_000).encode(),
	}
}

// TestDecodeTruncated cuts zTOCs off at every byte.
func TestDecodeTruncated(t *testing.T) {
	t.Parallel()
	for name, raw := range small(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range raw {
				if _, err := Decode(raw[:n:n]); !errors.Is(err, ErrFormat) {
					t.Fatalf("cut to %d of %d bytes: %v", n, len(raw), err)
				}
			}
		})
	}
}

// TestDecodeFlipped changes every byte of a zTOC: what comes of it is refused
// or is coherent.
func TestDecodeFlipped(t *testing.T) {
	t.Parallel()
	raw := small(t)["tar"]
	for i := range raw {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			p := bytes.Clone(raw)
			p[i] ^= mask
			if x, err := Decode(p); err == nil {
				if _, err := x.Encode(); err != nil {
					t.Errorf("byte %d ^ %#x: %v", i, mask, err)
				}
			} else if !errors.Is(err, ErrFormat) {
				t.Errorf("byte %d ^ %#x: %v", i, mask, err)
			}
		}
	}
}

// TestDecodeLayout1 reads checkpoints without the first one.
func TestDecodeLayout1(t *testing.T) {
	t.Parallel()
	x := valid()
	p := x.appendCheckpoints(nil)
	old := append(bytes.Clone(p[:pointsHeader]), p[pointsHeader+pointSize:]...)
	tests := []struct {
		name   string
		points []byte
		spans  int
		text   string
	}{
		{"layout 2", p, 3, ""},
		{"layout 1", old, 3, ""},
		{"a byte short", old[:len(old)-1], 3, "bytes for 3 spans"},
		{"a byte too long", append(bytes.Clone(p), 0), 3, "bytes for 3 spans"},
		{"another one missing", old[:len(old)-pointSize], 3, "bytes for 3 spans"},
		{"another number", binary.LittleEndian.AppendUint32(nil, 1<<31), 3, "4 bytes"},
		{"fewer than digests", old, 2, "3 of them for 2 spans"},
		{"empty", nil, 3, "0 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := &TOC{CompressedSize: x.CompressedSize, UncompressedSize: x.UncompressedSize}
			err := got.readCheckpoints(test.points, test.spans)
			if test.text != "" {
				if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range got.Spans {
				got.Spans[i].Digest = x.Spans[i].Digest
			}
			if d := same(x.Spans, got.Spans); d != "" || got.SpanSize != x.SpanSize {
				t.Errorf("span size %d %s", got.SpanSize, d)
			}
		})
	}
}

// TestDecodeShared refuses zTOCs that are larger than they look.
func TestDecodeShared(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	tests := []struct {
		name string
		file func(b *flatbuffers.Builder, name flatbuffers.UOffsetT, pax flatbuffers.UOffsetT)
		text string
	}{
		{"one name for all", func(b *flatbuffers.Builder, name, _ flatbuffers.UOffsetT) {
			for _, slot := range []int{fileName, fileLinkname, fileUname, fileGname} {
				b.PrependUOffsetTSlot(slot, name, 0)
			}
		}, "longer than itself"},
		{"one extended header for all", func(b *flatbuffers.Builder, _, pax flatbuffers.UOffsetT) {
			b.PrependUOffsetTSlot(filePAX, pax, 0)
		}, "longer than itself"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := flatbuffers.NewBuilder(0)
			name, kind := b.CreateString(long), b.CreateString(TypeDir)
			big := File{PAX: map[string]string{}}
			for i := range 200 {
				big.PAX[string(rune('a'+i))] = ""
			}
			pax := big.encodePAX(b)
			var files []flatbuffers.UOffsetT
			for i := range 100 {
				b.StartObject(fileSlots)
				b.PrependUOffsetTSlot(fileType, kind, 0)
				b.PrependInt64Slot(fileOffset, int64(i+1)*block, 0)
				test.file(b, name, pax)
				files = append(files, b.EndObject())
			}
			finish(b, files)
			if _, err := Decode(b.FinishedBytes()); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("one entry a million times", func(t *testing.T) {
		t.Parallel()
		b := flatbuffers.NewBuilder(0)
		kind := b.CreateString(TypeDir)
		b.StartObject(fileSlots)
		b.PrependUOffsetTSlot(fileType, kind, 0)
		b.PrependInt64Slot(fileOffset, block, 0)
		file := b.EndObject()
		finish(b, slices.Repeat([]flatbuffers.UOffsetT{file}, 1_000_000))
		if _, err := Decode(b.FinishedBytes()); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "entry 1,") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a record twice", func(t *testing.T) {
		t.Parallel()
		b := flatbuffers.NewBuilder(0)
		kind, key := b.CreateString(TypeDir), b.CreateString("key")
		b.StartObject(paxSlots)
		b.PrependUOffsetTSlot(paxKey, key, 0)
		record := b.EndObject()
		records := references(b, []flatbuffers.UOffsetT{record, record})
		b.StartObject(fileSlots)
		b.PrependUOffsetTSlot(fileType, kind, 0)
		b.PrependUOffsetTSlot(filePAX, records, 0)
		finish(b, []flatbuffers.UOffsetT{b.EndObject()})
		if _, err := Decode(b.FinishedBytes()); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), `"key" stands there twice`) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("too many entries", func(t *testing.T) {
		t.Parallel()
		b := flatbuffers.NewBuilder(0)
		b.StartObject(fileSlots)
		file := b.EndObject()
		finish(b, slices.Repeat([]flatbuffers.UOffsetT{file}, maxFiles+1))
		if _, err := Decode(b.FinishedBytes()); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "1000001 entries") {
			t.Errorf("error %v", err)
		}
	})
}

// finish makes a zTOC of nothing but entries.
func finish(b *flatbuffers.Builder, files []flatbuffers.UOffsetT) {
	list := references(b, files)
	b.StartObject(tocSlots)
	b.PrependUOffsetTSlot(tocFiles, list, 0)
	toc := b.EndObject()
	b.StartObject(zSlots)
	b.PrependInt64Slot(zUncompressedSize, maxArchive, 0)
	b.PrependUOffsetTSlot(zTOC, toc, 0)
	b.Finish(b.EndObject())
}
