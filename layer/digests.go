package layer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
)

// prefixOf returns the first 8 bytes of a digest as a number: numbers are in the
// order of their digests.
func prefixOf(sum *[32]byte) uint64 { return binary.BigEndian.Uint64(sum[:]) }

// digest returns the digest that r is the beginning of.
func (x *Index) digest(r DigestRef) *[32]byte {
	if r.File != 0 {
		return &x.Files[r.Row].SHA256
	}
	return &x.Chunks[r.Row].SHA256
}

// sortDigests makes Digests of Chunks and Files.
func (x *Index) sortDigests() {
	x.Digests = nil
	if x.Info.Digests != OfData || len(x.Chunks) == 0 {
		return
	}
	x.Digests = make([]DigestRef, len(x.Chunks))
	for i := range x.Chunks {
		x.Digests[i] = DigestRef{Prefix: prefixOf(&x.Chunks[i].SHA256), Row: uint32(i)}
	}
	for i := range x.Files {
		if in := &x.Inodes[x.Files[i].Inode]; in.Size > 0 && !x.isChunk(in) {
			x.Digests = append(x.Digests, DigestRef{Prefix: prefixOf(&x.Files[i].SHA256), Row: uint32(i), File: 1})
		}
	}
	slices.SortFunc(x.Digests, func(a, b DigestRef) int {
		if a.Prefix != b.Prefix {
			return cmp.Compare(a.Prefix, b.Prefix)
		}
		return cmp.Or(bytes.Compare(x.digest(a)[:], x.digest(b)[:]), cmp.Compare(a.File, b.File), cmp.Compare(a.Row, b.Row))
	})
}

// isChunk reports whether a file is one chunk.
func (x *Index) isChunk(in *Inode) bool {
	if in.Extents.Count != 0 {
		return false
	}
	i := sort.Search(len(x.Chunks), func(i int) bool { return x.Chunks[i].Addr >= in.Addr })
	return i < len(x.Chunks) && x.Chunks[i].Addr == in.Addr && int64(x.Chunks[i].Len) == in.Size
}

// validateDigests checks that there are as many as there should be, in order,
// and that each belongs to a chunk or file. Whether it is that one's is seen
// when it is looked up, which costs less than to look at all of them.
func (x *Index) validateDigests() error {
	chunks, last := 0, uint64(0)
	for i := range x.Digests {
		d := &x.Digests[i]
		rows := len(x.Chunks)
		if d.File != 0 {
			rows = len(x.Files)
		} else {
			chunks++
		}
		if int(d.Row) >= rows || d.File > 1 {
			return fmt.Errorf("digest %d of nothing: row %d of %d", i, d.Row, rows)
		}
		if d.Prefix < last {
			return fmt.Errorf("digests out of order at %d", i)
		}
		last = d.Prefix
	}
	want := len(x.Chunks)
	if x.Info.Digests != OfData {
		want = 0
	}
	if chunks != want || len(x.Digests)-chunks > len(x.Files) {
		return fmt.Errorf("%d digests, %d of them of %d chunks", len(x.Digests), chunks, want)
	}
	return nil
}

// filesOfSpans returns those of Files that have all of some chunk. Another
// layer's file can give no others.
func (x *Index) filesOfSpans() []File {
	return slices.DeleteFunc(slices.Clone(x.Files), func(f File) bool {
		for _, e := range x.dataOf(&x.Inodes[f.Inode]) {
			if first, end := x.chunksIn(e.Addr, e.Len); first < end {
				return false
			}
		}
		return true
	})
}

// chunksIn returns the chunks [first, end) that lie within the addresses
// [addr, addr+n).
func (x *Index) chunksIn(addr, n int64) (first, end int) {
	first = sort.Search(len(x.Chunks), func(i int) bool { return x.Chunks[i].Addr >= addr })
	for end = first; end < len(x.Chunks) && x.Chunks[end].Addr+int64(x.Chunks[end].Len) <= addr+n; end++ {
	}
	return first, end
}
