package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
)

func TestUnpack(t *testing.T) {
	t.Parallel()
	raw := tarball(t)
	for name, p := range compressedForms(t, raw) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := descriptor(p, mediaTar, nil)
			real, _ := streamed(t, p)
			other, err := Stream(t.Context(), &blob{bytes: p}, d, real.DiffID(), StreamOptions{Stage: new(stage), Reason: "another reason"})
			if err != nil {
				t.Fatal(err)
			}
			packed := real.Pack()
			if !bytes.Equal(packed, other.Pack()) {
				t.Error("why a layer was streamed shows in the packed index")
			}
			x, err := Unpack(packed, d, someClaim())
			if err != nil {
				t.Fatal(err)
			}
			if x.Blob() != d.Digest || x.Info.Trust != Claimed || x.Claim() != someClaim().Digest || x.Origin() != "a test" || x.Reason() != "" || x.DiffID() != "" {
				t.Errorf("info %+v", x.Info)
			}
			if d := cmp.Diff(listing(real), listing(x)); d != "" {
				t.Error(d)
			}
			if !bytes.Equal(x.Pack(), packed) {
				t.Error("packed again, it is not the same")
			}
			if !bytes.Equal(addresses(t, x, &blob{bytes: p}), addresses(t, real, &blob{bytes: p})) {
				t.Error("other bytes")
			}
			proved, err := Decode(x.AsProved(real.DiffID()).Encode())
			if err != nil {
				t.Fatal(err)
			}
			if proved.Info.Trust != Proved || proved.DiffID() != real.DiffID() || proved.Claim() != x.Claim() || x.Info.Trust != Claimed {
				t.Errorf("proved: %+v, before: %+v", proved.Info, x.Info)
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	p := gzipped(t, tarball(t))
	x, _ := streamed(t, p)
	good, d := x.Pack(), descriptor(p, mediaGzip, nil)
	longer, other := d, d
	longer.Size++
	other.Digest = descriptor(p[1:], "", nil).Digest
	file := x.Encode()
	later := bytes.Clone(file)
	later[8]++
	overlapping := copyIndex(t, x)
	overlapping.Spans[1].Off -= 2
	partly, err := FromZTOC(encoded(t, zTOC(t, p, 0)), d, someClaim())
	if err != nil {
		t.Fatal(err)
	}
	whole := copyIndex(t, partly)
	whole.Checkpoints = nil
	partly.Chunks[0].Inner++
	for _, c := range []struct {
		name string
		data []byte
		d    ocispec.Descriptor
		want string
	}{
		{"nothing", nil, d, "index"},
		{"no zstd", file, d, "index"},
		{"half of it", good[:len(good)/2], d, "EOF"},
		{"an empty file", squeezed(t, nil), d, "corrupt"},
		{"another layer's", good, other, "another layer"},
		{"a layer of another size", good, longer, "another layer"},
		{"of another version", squeezed(t, later), d, "version"},
		{"a file that is cut off", squeezed(t, file[:len(file)-8]), d, "corrupt"},
		{"of unknown length", []byte("\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00\x00"), d, "how long it is"},
		{"of enormous length", []byte("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x00\x00"), d, "exceed the limit"},
		{"of more than it says", append(squeezed(t, file), squeezed(t, file)...), d, "size"},
		{"spans that overlap", squeezed(t, overlapping.Encode()), d, "span 1"},
		{"directories too deep", squeezed(t, deep(d, maxDepth+1).Encode()), d, "directories deep"},
		{"a digest of few bytes", squeezed(t, partly.Encode()), d, "less than its bytes"},
		{"digests of a blob that is read whole", squeezed(t, whole.Encode()), d, "without checkpoints"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x, err := Unpack(c.data, c.d, someClaim())
			if x != nil || !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.d.Digest.String()) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// deep is an index of n directories, each in the one before.
func deep(d ocispec.Descriptor, n int) *Index {
	pool := "d" + d.Digest.String()
	x := &Index{Pool: flat.Pool(pool), Info: Info{
		Blob: flat.Str{Off: 1, Len: uint32(len(pool) - 1)}, BlobSize: d.Size, Format: FormatTar, Trust: Proved,
	}}
	for i := range uint32(n) {
		x.Inodes = append(x.Inodes, Inode{Mode: typeDir, Children: flat.Range{First: i, Count: 1}})
		x.Entries = append(x.Entries, Entry{Name: flat.Str{Len: 1}, Inode: i + 1, Kind: EntryInode})
	}
	x.Inodes = append(x.Inodes, Inode{Mode: typeDir, Children: flat.Range{First: uint32(n)}})
	return x
}

// TestUnpackForeignWords: what somebody says does nothing to a terminal.
func TestUnpackForeignWords(t *testing.T) {
	t.Parallel()
	p := gzipped(t, tarball(t))
	d := descriptor(p, mediaGzip, nil)
	x, _ := streamed(t, p)
	in := x.input()
	in.Resident = "red \x1b[31m" + strings.Repeat("x", 1000)
	fetchable := x.describedBy(in)
	resident := copyIndex(t, fetchable)
	reside(resident)
	for _, c := range []struct {
		name string
		x    *Index
		want string
	}{
		{"fetchable", fetchable, ""},
		{"resident", resident, "red [31mxxx"},
	} {
		x, err := Unpack(c.x.Pack(), d, someClaim())
		if err != nil {
			t.Fatal(err)
		}
		if got := x.Resident(); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") || len(got) > 300 {
			t.Errorf("%s: resident: %q", c.name, got)
		}
	}
	if _, err := Unpack(deep(d, maxDepth).Pack(), d, someClaim()); err != nil {
		t.Error(err)
	}
}

// squeezed is p as one zstd frame that says how long it is.
func squeezed(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(p, nil)
}

// FuzzUnpack: what is unpacked is coherent and says that it is claimed. The
// input is the file and not the frame, whose decoder is the library's.
func FuzzUnpack(f *testing.F) {
	p := gzipped(f, cut(tarOf(f, "d/name", "content"), 700)...)
	x, _ := streamed(f, p)
	d := descriptor(p, mediaGzip, nil)
	f.Add(x.Encode())
	f.Fuzz(func(t *testing.T, file []byte) {
		file = bytes.Clone(file)
		if len(file) >= 32 { // let the fuzzer past the length and the checksum
			binary.LittleEndian.PutUint64(file[16:], uint64(len(file)))
			binary.LittleEndian.PutUint32(file[24:], crc32.Checksum(file[32:], crc32.MakeTable(crc32.Castagnoli)))
		}
		x, err := Unpack(squeezed(t, file), d, someClaim())
		if err != nil {
			if x != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v with error %v", x, err)
			}
			return
		}
		if x.Info.Trust != Claimed || x.Blob() != d.Digest || x.Claim() != someClaim().Digest || x.Reason() != "" || x.DiffID() != "" {
			t.Errorf("info %+v", x.Info)
		}
		walkTables(t, x)
		again, err := Unpack(x.Pack(), d, someClaim())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Pack(), x.Pack()) {
			t.Error("packed again, it is not the same")
		}
		for i, s := range x.Spans {
			if x.seekable() && s.CLen <= 4096 && s.Len <= 1<<20 {
				_ = x.decodeSpan(i, p[s.Off:][:s.CLen], make([]byte, s.Len))
			}
		}
	})
}
