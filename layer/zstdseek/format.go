package zstdseek

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// ErrFormat: a stream is malformed or exceeds a limit of this package.
var ErrFormat = sentinel.New("malformed zstd", errdefs.ErrInvalidArgument)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}

const (
	maxWindow   = 128 << 20 // bytes of output that a frame may refer back to
	minWindow   = 1 << 10   // bytes; RFC 8878, section 3.1.1.1.2
	maxBlock    = 128 << 10 // bytes of a block, before and after; RFC 8878, section 3.1.1.2.3
	maxHeader   = 4 + 14    // bytes of a frame's magic number and header
	blockHeader = 3         // bytes
	checksum    = 4         // bytes

	frameMagic = 0xfd2fb528 // RFC 8878, section 3.1.1
	skipMagic  = 0x184d2a50 // the lowest of sixteen; RFC 8878, section 3.1.2
)

// emptyLast is a raw block without content that ends a frame.
const emptyLast = "\x01\x00\x00"

// frame is what a frame's header says.
type frame struct {
	header int    // bytes of magic number and header
	skip   int64  // bytes that follow in a skippable frame
	window uint32 // bytes, rounded up to what a window descriptor can say; 0 in a skippable frame
	sum    int    // bytes of the checksum at the end
}

// parseFrame reads the header that b begins with. A b of maxHeader bytes is
// long enough for any; for one that is not, the error is io.ErrUnexpectedEOF.
func parseFrame(b []byte) (frame, error) {
	if len(b) < 5 {
		return frame{}, io.ErrUnexpectedEOF
	}
	magic := binary.LittleEndian.Uint32(b)
	if magic&^0xf == skipMagic {
		if len(b) < 8 {
			return frame{}, io.ErrUnexpectedEOF
		}
		return frame{header: 8, skip: int64(binary.LittleEndian.Uint32(b[4:]))}, nil
	}
	if magic != frameMagic {
		return frame{}, malformed("magic number %#08x", magic)
	}
	// RFC 8878, section 3.1.1.1.1
	flags := b[4]
	single := flags>>5&1 == 1
	if flags>>3&1 != 0 {
		return frame{}, malformed("reserved bit of a frame's header set")
	}
	dict := [4]int{0, 1, 2, 4}[flags&3]
	size := [4]int{0, 2, 4, 8}[flags>>6]
	if single {
		size = max(size, 1)
	}
	f := frame{header: 5 + dict + size}
	if !single {
		f.header++
	}
	if len(b) < f.header {
		return frame{}, io.ErrUnexpectedEOF
	}
	if flags>>2&1 == 1 {
		f.sum = checksum
	}
	content := field(b[f.header-size : f.header])
	if id := field(b[f.header-size-dict : f.header-size]); id != 0 {
		return frame{}, malformed("dictionary %d needed", id)
	}
	window := content
	if size == 2 {
		window += 256
	}
	if !single {
		window = describedWindow(b[5])
	}
	if window > maxWindow {
		return frame{}, malformed("frame with a window of %d bytes, at most %d", window, maxWindow)
	}
	f.window = uint32(describedWindow(descriptor(uint32(window))))
	return f, nil
}

// field reads a little-endian number of up to 8 bytes.
func field(b []byte) uint64 {
	var all [8]byte
	copy(all[:], b)
	return binary.LittleEndian.Uint64(all[:])
}

// describedWindow returns the bytes that a window descriptor stands for: RFC
// 8878, section 3.1.1.1.2.
func describedWindow(d byte) uint64 {
	base := uint64(minWindow) << (d >> 3)
	return base + base/8*uint64(d&7)
}

// descriptor describes the smallest window that has n bytes, up to maxWindow.
func descriptor(n uint32) byte {
	n = max(n, minWindow)
	exponent := bits.Len32(n) - bits.Len32(minWindow)
	eighth := uint32(minWindow/8) << exponent
	// Eight eighths above the base are the next base.
	return byte(exponent<<3) + byte((n-8*eighth+eighth-1)/eighth)
}

// appendHeader appends the header of a frame that has a window of n bytes and
// neither checksum nor known length.
func appendHeader(b []byte, n uint32) []byte {
	b = binary.LittleEndian.AppendUint32(b, frameMagic)
	return append(b, 0, descriptor(n))
}

// kind is a block's type: RFC 8878, section 3.1.1.2.2.
type kind uint8

const (
	rawBlock kind = iota
	rleBlock
	compressedBlock
	reservedBlock
)

// block is what a block's header says.
type block struct {
	kind kind
	last bool
	size int // bytes of its content in the stream
}

// parseBlock reads the first blockHeader bytes of b.
func parseBlock(b []byte) (block, error) {
	h := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	x := block{kind: kind(h >> 1 & 3), last: h&1 == 1, size: int(h >> 3)}
	switch {
	case x.kind == reservedBlock:
		return x, malformed("block of the reserved type")
	case x.size > maxBlock:
		return x, malformed("block of %d bytes, at most %d", x.size, maxBlock)
	case x.kind == rleBlock:
		x.size = 1
	}
	return x, nil
}
