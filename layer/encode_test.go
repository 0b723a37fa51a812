package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/flat"
)

// sample is an index with a row in every table.
func sample(t testing.TB) *Index {
	t.Helper()
	b := NewBuilder()
	for _, h := range []*Header{
		dir("d"),
		{Name: "d/run", Mode: typeRegular | 0o644, Size: 5, Addr: 2, Xattrs: map[string]string{"user.a": "1", "user.b": "2"}},
		{Name: "d/holes", Mode: typeRegular | 0o644, Size: 100, Extents: []Extent{{Off: 10, Addr: 0, Len: 2}, {Off: 50, Addr: 7, Len: 3}}},
		{Name: "hole", Mode: typeRegular | 0o644, Size: 9, Extents: []Extent{}},
		symlink("link", "d/run"), hardlink("same", "d/run"), hardlink("lower", "not/here"), file(".wh.gone"), file("d/.wh..wh..opq"),
	} {
		if err := b.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	spans := []Span{
		{Addr: 0, Len: 7, Off: 3, CLen: 4, Chunks: flat.Range{First: 0, Count: 2}},
		{Addr: 7, Len: 3, Off: 7, CLen: 9, Chunks: flat.Range{First: 2, Count: 1}},
	}
	chunks := []Chunk{{Addr: 0, Len: 2}, {Addr: 2, Len: 5, Inner: 512}, {Addr: 7, Len: 3}}
	x, err := b.Index(InfoInput{
		Blob: "sha256:aa", DiffID: "sha256:bb", Claim: "sha256:cc", Reason: "why",
		BlobSize: 16, AddrSize: 10, Format: FormatEstargz, Trust: Claimed,
	}, Cut{Spans: spans, Chunks: chunks})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestEncode(t *testing.T) {
	t.Parallel()
	x := sample(t)
	data := x.Encode()
	if !bytes.Equal(data, sample(t).Encode()) {
		t.Error("the same content gives other bytes")
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Encode(), data) {
		t.Error("decoding and encoding changes the bytes")
	}
	if got.Blob() != "sha256:aa" || got.DiffID() != "sha256:bb" || got.Claim() != "sha256:cc" || got.Reason() != "why" ||
		got.Info.Format.String() != "eStargz" || got.Info.Trust.String() != "claimed" {
		t.Errorf("info %+v", got.Info)
	}
}

func TestDecodeOtherVersion(t *testing.T) {
	t.Parallel()
	data := sample(t).Encode()
	data[8]++
	if _, err := Decode(data); !errors.Is(err, flat.ErrVersion) {
		t.Errorf("got %v", err)
	}
}

// TestValidate breaks one reference at a time.
func TestValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(*Index)
		want string
	}{
		{"xattr of nobody", func(x *Index) { x.Xattrs = append(x.Xattrs, Xattr{Name: flat.Str{Off: 1 << 30}}) }, "outside the pool"},
		{"string of info", func(x *Index) { x.Info.Claim.Off = 1 << 30 }, "outside the pool"},
		{"format", func(x *Index) { x.Info.Format = 99 }, "format 99"},
		{"trust", func(x *Index) { x.Info.Trust = 0 }, "trust 0"},
		{"no root", func(x *Index) { x.Inodes = nil }, "root"},
		{"root a file", func(x *Index) { x.Inodes[0].Mode = typeFifo }, "root"},
		{"children beyond", func(x *Index) { x.Inodes[0].Children.Count = 1 << 20 }, "children out of order"},
		{"children shared", func(x *Index) { x.Inodes[1].Children.First = 0 }, "children out of order"},
		{"children of a file", func(x *Index) { x.Inodes[3].Children.Count = 1 }, "children of a file"},
		{"entry left over", func(x *Index) { x.Entries = append(x.Entries, x.Entries[0]) }, "outside the tree"},
		{"inode left over", func(x *Index) { x.Inodes = append(x.Inodes, x.Inodes[2]) }, "outside the tree"},
		{"cycle", func(x *Index) { x.Entries[len(x.Entries)-1].Inode = 1 }, "inode 1"},
		{"root as a child", func(x *Index) { x.Entries[0].Inode = 0 }, "inode 0"},
		{"inode out of order", func(x *Index) { x.Entries[0].Inode = 3 }, "inode 3"},
		{"inode beyond", func(x *Index) { x.Entries[0].Inode = 1 << 30 }, "inode 1073741824"},
		{"name beyond", func(x *Index) { x.Entries[0].Name.Len = 1 << 30 }, "outside the pool"},
		{"no name", func(x *Index) { x.Entries[0].Name.Len = 0 }, `name ""`},
		{"names out of order", func(x *Index) { x.Entries[1].Name = x.Entries[0].Name }, "out of order"},
		{"kind", func(x *Index) { x.Entries[0].Kind = 9 }, "kind 9"},
		{"whiteout with an inode", func(x *Index) { x.Entries[0].Kind = EntryWhiteout }, "kind 2"},
		{"lower link to nothing", func(x *Index) { x.Entries[0].Kind, x.Entries[0].Inode = EntryLowerLink, None }, "kind 3"},
		{"mode", func(x *Index) { x.Inodes[1].Mode |= 1 << 20 }, "mode"},
		{"extents beyond", func(x *Index) { x.Inodes[4].Extents.First = 1 << 30 }, "outside their table"},
		{"extents out of order", func(x *Index) { x.Extents[2].Off = 11 }, "extent"},
		{"extent beyond the file", func(x *Index) { x.Extents[2].Off = 98 }, "extent"},
		{"extent overflow", func(x *Index) { x.Extents[2].Len = 1<<63 - 1 }, "extent"},
		{"extent nowhere", func(x *Index) { x.Extents[2].Addr = 8 }, "address space"},
		{"negative address", func(x *Index) { x.Inodes[4].Addr = -1 }, "address space"},
		{"size", func(x *Index) { x.Inodes[4].Size = 1 << 62 }, "address space"},
		{"size of a symlink", func(x *Index) { x.Inodes[3].Size++ }, "symlink"},
		{"xattr order", func(x *Index) { x.Xattrs[1].Name = x.Xattrs[0].Name }, "xattr"},
		{"xattr beyond", func(x *Index) { x.Xattrs[1].Value.Off = 1 << 30 }, "xattr"},
		{"gap between spans", func(x *Index) { x.Spans[1].Addr++ }, "span 1"},
		{"spans short", func(x *Index) { x.Info.AddrSize++ }, "spans cover"},
		{"span beyond the blob", func(x *Index) { x.Spans[1].CLen++ }, "span 1"},
		{"spans overlap in the blob", func(x *Index) { x.Spans[1].Off-- }, "span 1"},
		{"empty span", func(x *Index) { x.Spans[1].Len = 0 }, "span 1"},
		{"span overflow", func(x *Index) { x.Spans[1].Off = 1<<63 - 1 }, "span 1"},
		{"chunk gap", func(x *Index) { x.Chunks[1].Addr++ }, "chunk 1"},
		{"chunk short", func(x *Index) { x.Chunks[1].Len-- }, "chunks cover"},
		{"chunks overlap", func(x *Index) { x.Chunks[1].Inner = 1 }, "chunk 1"},
		{"chunk deep inside", func(x *Index) { x.Chunks[1].Inner = 1 << 31 }, "exceed the limit"},
		{"no chunk", func(x *Index) { x.Spans[1].Chunks.Count = 0 }, "chunks out of order"},
		{"digest missing", func(x *Index) { x.Digests = x.Digests[1:] }, "2 of them of 3 chunks"},
		{"digest left over", func(x *Index) { x.Digests = append(x.Digests, x.Digests[2]) }, "4 of them of 3 chunks"},
		{"digests out of order", func(x *Index) { x.Digests[0].Prefix = 1 }, "digests out of order"},
		{"digest of no chunk", func(x *Index) { x.Digests[1].Row = 3 }, "row 3 of 3"},
		{"digest of no file", func(x *Index) { x.Digests[1].File = 1 }, "row 1 of 0"},
		{"digest of nothing", func(x *Index) { x.Digests[1].File = 2 }, "digest 1 of nothing"},
		{"digests of the blob", func(x *Index) { x.Info.Digests = OfBlob }, "of 0 chunks"},
		{"landmark beyond", func(x *Index) { x.Info.Landmark = 17 }, "landmark at 17"},
		{"landmark before", func(x *Index) { x.Info.Landmark = -2 }, "landmark at -2"},
		{"chunk left over", func(x *Index) { x.Chunks = append(x.Chunks, x.Chunks[2]) }, "spans cover"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := sample(t)
			c.do(x)
			_, err := Decode(x.Encode())
			if !errors.Is(err, flat.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzDecode: any bytes give an error, or an index that can be walked.
func FuzzDecode(f *testing.F) {
	good := sample(f).Encode()
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte("PEELLAYR"))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		if len(data) >= 32 { // let the fuzzer past the length and the checksum
			binary.LittleEndian.PutUint64(data[16:], uint64(len(data)))
			binary.LittleEndian.PutUint32(data[24:], crc32.Checksum(data[32:], crc32.MakeTable(crc32.Castagnoli)))
		}
		x, err := Decode(data)
		if err != nil {
			return
		}
		walkTables(t, x)
	})
}

// walkTables follows every reference of an index as its users do.
func walkTables(t testing.TB, x *Index) {
	listing(x)
	_, _, _, _ = x.Blob(), x.DiffID(), x.Claim(), x.Reason()
	for i := range x.Inodes {
		in := &x.Inodes[i]
		for _, e := range x.Extents[in.Extents.First:][:in.Extents.Count] {
			_ = e
		}
		for _, a := range x.Xattrs[in.Xattrs.First:][:in.Xattrs.Count] {
			_, _ = x.Pool.String(a.Name), x.Pool.String(a.Value)
		}
	}
	for _, d := range x.Digests {
		_ = x.digest(d)
	}
	var addr int64
	for i := range x.Spans {
		s := &x.Spans[i]
		for _, c := range x.Chunks[s.Chunks.First:][:s.Chunks.Count] {
			if c.Addr != addr {
				t.Fatalf("chunk at %d, not %d", c.Addr, addr)
			}
			addr += int64(c.Len)
		}
	}
	if addr != x.Info.AddrSize {
		t.Fatalf("chunks cover %d of %d bytes", addr, x.Info.AddrSize)
	}
}
