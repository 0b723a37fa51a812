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

// sortDigests makes Digests of Chunks.
func (x *Index) sortDigests() {
	x.Digests = nil
	if x.Info.Digests != OfData || len(x.Chunks) == 0 {
		return
	}
	x.Digests = make([]ChunkDigest, len(x.Chunks))
	for i := range x.Chunks {
		x.Digests[i] = ChunkDigest{Prefix: prefixOf(&x.Chunks[i].SHA256), Chunk: uint32(i)}
	}
	slices.SortFunc(x.Digests, func(a, b ChunkDigest) int {
		if a.Prefix != b.Prefix {
			return cmp.Compare(a.Prefix, b.Prefix)
		}
		return cmp.Or(bytes.Compare(x.Chunks[a.Chunk].SHA256[:], x.Chunks[b.Chunk].SHA256[:]), cmp.Compare(a.Chunk, b.Chunk))
	})
}

// validateDigests checks that there are as many as there should be, in order,
// and that each belongs to a chunk. Whether it is that chunk's is seen when it
// is looked up, which costs less than to look at all of them.
func (x *Index) validateDigests() error {
	want := len(x.Chunks)
	if x.Info.Digests != OfData {
		want = 0
	}
	if len(x.Digests) != want {
		return fmt.Errorf("%d digests of %d chunks", len(x.Digests), want)
	}
	last := uint64(0)
	for i := range x.Digests {
		d := &x.Digests[i]
		if int(d.Chunk) >= len(x.Chunks) {
			return fmt.Errorf("digest %d of chunk %d", i, d.Chunk)
		}
		if d.Prefix < last {
			return fmt.Errorf("digests of chunks out of order at %d", i)
		}
		last = d.Prefix
	}
	return nil
}

// filesOfSpans returns those of Files that have all of some chunk. Another
// layer's file can give no others.
func (x *Index) filesOfSpans() []File {
	var files []File
	for _, f := range x.Files {
		for _, e := range x.dataOf(&x.Inodes[f.Inode]) {
			if first, end := x.chunksIn(e.Addr, e.Len); first < end {
				files = append(files, f)
				break
			}
		}
	}
	return files
}

// chunksIn returns the chunks [first, end) that lie within the addresses
// [addr, addr+n).
func (x *Index) chunksIn(addr, n int64) (first, end int) {
	first = sort.Search(len(x.Chunks), func(i int) bool { return x.Chunks[i].Addr >= addr })
	for end = first; end < len(x.Chunks) && x.Chunks[end].Addr+int64(x.Chunks[end].Len) <= addr+n; end++ {
	}
	return first, end
}
