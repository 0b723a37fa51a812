package cache

import (
	"fmt"
	"io"
	"math/bits"
	"os"
	"sync/atomic"
	"unsafe"
)

// formatVersion is that of have and of what its spans mean.
const formatVersion = 1

// maxSpans bounds a have file to 16 MiB.
const maxSpans = 1 << 26

// haveMagic reads "peelhave" in a file of a little-endian machine; elsewhere it
// does not match, and the file counts as another version's.
const haveMagic = 0x65766168_6c656570

// bootID names one run of a kernel. The zero value is unknown and equals none.
type bootID [2]uint64

// fileID names a file as long as it exists.
type fileID struct{ dev, ino uint64 }

// header begins a have file. But for generation it never changes.
type header struct {
	magic      uint64
	version    uint64
	spans      uint64
	size       uint64 // of the address space, bytes
	boot       bootID // when checked was last cleared
	data       fileID // the file that the bits speak of
	generation uint64 // raised by evictors, after clearing bits and before punching
	_          [7]uint64
}

const headerWords = int(unsafe.Sizeof(header{})) / 8

// have is an open have file: the header, then two bitmaps of whole words.
// Present: the span's bytes are in data, or were before the machine crashed.
// Checked: they are known to be. A checked span is present.
type have struct {
	words   []uint64 // the file's content
	header  *header
	present []uint64
	checked []uint64
}

func bitmapWords(spans int) int { return (spans + 63) / 64 }

func haveWords(spans int) int { return headerWords + 2*bitmapWords(spans) }

// newHave returns the content of a have file without any span; publish or
// restore complete its header.
func newHave(h header) []uint64 {
	words := make([]uint64, haveWords(int(h.spans)))
	h.magic, h.version = haveMagic, formatVersion
	*viewHeader(words) = h
	return words
}

func viewHeader(words []uint64) *header {
	return (*header)(unsafe.Pointer(unsafe.SliceData(words)))
}

// viewHave gives words, haveWords(spans) of them, their meaning, if they are
// those of such a store.
func viewHave(words []uint64, size int64, spans int) (*have, error) {
	end := headerWords + bitmapWords(spans)
	h := &have{words: words, header: viewHeader(words), present: words[headerWords:end], checked: words[end:]}
	if h.header.magic != haveMagic || h.header.version != formatVersion {
		return nil, fmt.Errorf("magic %x, version %d", h.header.magic, h.header.version)
	}
	if h.header.size != uint64(size) || h.header.spans != uint64(spans) {
		return nil, fmt.Errorf("%d bytes in %d spans, not %d in %d", h.header.size, h.header.spans, size, spans)
	}
	return h, nil
}

// readWords returns the content of a file of n words.
func readWords(path string, n int) ([]uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() != int64(8*n) {
		return nil, fmt.Errorf("%s: %d bytes, not %d", path, fi.Size(), 8*n)
	}
	words := make([]uint64, n)
	_, err = io.ReadFull(f, asBytes(words))
	return words, err
}

// setAll sets the bits of the first spans, and of no other.
func setAll(bitmap []uint64, spans int) {
	for i := range bitmap {
		bitmap[i] = rangeMask(i, 0, spans)
	}
}

// rangeMask returns the bits of word i that stand for spans in [first, end).
func rangeMask(i, first, end int) uint64 {
	lo, hi := max(first-64*i, 0), min(end-64*i, 64)
	if lo >= hi {
		return 0
	}
	return ^uint64(0) << lo & (^uint64(0) >> (64 - hi))
}

// allSet reports whether all bits in [first, end) are set.
func allSet(bitmap []uint64, first, end int) bool {
	for i := first / 64; i*64 < end; i++ {
		mask := rangeMask(i, first, end)
		if atomic.LoadUint64(&bitmap[i])&mask != mask {
			return false
		}
	}
	return true
}

// set sets a bit of the have file, in one of its bitmaps.
func (s *Store) set(bitmap []uint64, span int) error {
	word := &bitmap[span/64]
	atomic.OrUint64(word, 1<<(span%64))
	at := uintptr(unsafe.Pointer(word)) - uintptr(unsafe.Pointer(unsafe.SliceData(s.have.words)))
	return s.writeThrough(int(at / 8))
}

func count(bitmap []uint64) int {
	n := 0
	for i := range bitmap {
		n += bits.OnesCount64(atomic.LoadUint64(&bitmap[i]))
	}
	return n
}

func asBytes(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 8*len(words))
}
