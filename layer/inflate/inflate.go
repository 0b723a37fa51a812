package inflate

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// WindowSize is how far back in its output a DEFLATE stream refers at most, in
// bytes (RFC 1951, section 2).
const WindowSize = 32 << 10

// ErrFormat: the stream, or a packed window, breaks its format.
var ErrFormat = sentinel.New("malformed gzip", errdefs.ErrInvalidArgument)

// Place is where decompression can begin: between two blocks, or where a gzip
// member begins.
type Place struct {
	Bit    int64 // offset in the compressed stream, in bits, the lowest of a byte first
	Out    int64 // offset in the output, in bytes
	Member bool  // a gzip member begins here, so that no window is needed
}

const (
	inSize  = 64 << 10
	outSize = 128 << 10
	// outSlack is the room one round of the fast loop needs: three literals, a
	// match, and what copying by words writes beyond it.
	outSlack = 3 + maxMatch + 16
	outFull  = outSize - outSlack
)

type step uint8

const (
	atMember step = iota // before the header of a gzip member
	atBlock              // before the header of a block
	inStored             // in a stored block
	inCoded              // in a block of Huffman codes
)

// Reader decompresses a gzip stream. Its zero value is not usable; use NewReader.
type Reader struct {
	src    io.Reader
	srcErr error // of the source, for when in is used up
	ended  bool  // the source has; likewise
	err    error // of everything from now on

	ip, inEnd int    // in[ip:inEnd] is still to be used
	inOff     int64  // offset of in[0] in the stream
	bits      uint64 // bits taken from in; those above nbits are of in[ip:], or zero
	nbits     uint   // below 8 except within a function
	skip      uint   // bits of the first byte that are before the place resumed at

	step    step
	final   bool // the block is the last of its member
	fixed   bool // the tables hold the fixed code
	checked bool // the member was read from its beginning
	stored  int  // bytes left of the stored block
	crc     uint32
	size    uint32 // of the member's output, modulo 2^32

	rp, wp int   // out[rp:wp] is still to be returned
	lo     int   // out[lo:] is output of the member, or its window
	floor  int   // references to before out[floor] are looked at by reach; at least lo
	outOff int64 // offset of out[0] in the output
	marks  *marks

	lit  [litTable]uint32
	dist [distTable]uint32
	in   [inSize]byte
	out  [outSize]byte
	lens [maxLit + maxDist]uint8
	buf  [10]byte // for headers and trailers
}

// NewReader returns a Reader at the beginning of the gzip stream r.
func NewReader(r io.Reader) *Reader {
	z := new(Reader)
	z.Reset(r)
	return z
}

// Reset makes z what NewReader(r) returns, keeping its memory.
func (z *Reader) Reset(r io.Reader) {
	z.Resume(r, Place{Member: true}, nil)
}

// Resume begins at a place: r yields the compressed bytes from byte at.Bit/8 on.
// The window is the output before the place, its end at the place; it may be
// shorter than WindowSize if nothing refers to more, and what does is
// ErrFormat. Boundary counts on from at.
func (z *Reader) Resume(r io.Reader, at Place, window []byte) {
	z.src, z.srcErr, z.err, z.ended = r, nil, nil, false
	z.ip, z.inEnd, z.inOff = 0, 0, at.Bit>>3
	z.bits, z.nbits, z.skip = 0, 0, uint(at.Bit&7)
	z.final, z.checked = false, false
	z.step = atBlock
	if at.Member {
		z.step, window = atMember, nil
	}
	window = window[max(0, len(window)-WindowSize):]
	z.wp = copy(z.out[:], window)
	z.rp, z.lo, z.floor = z.wp, 0, 0
	z.outOff = at.Out - int64(z.wp)
	if z.marks != nil {
		z.marks.n, z.marks.first = 0, 0
	}
}

// Read reads output, and ends where a block ends at the latest, so that
// Boundary can be asked. It returns 0, nil if p is empty or a block without
// output has ended, and io.EOF after the last member. A stream without any
// member is io.ErrUnexpectedEOF.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.rp == z.wp {
		if z.err != nil {
			return 0, z.err
		}
		z.err = z.decode()
		if z.rp == z.wp && z.err == nil && z.step <= atBlock {
			return 0, nil
		}
	}
	n := copy(p, z.out[z.rp:z.wp])
	z.rp += n
	return n, nil
}

// Boundary tells whether all output before a place has been returned by Read,
// and which place that is.
func (z *Reader) Boundary() (Place, bool) {
	if z.rp != z.wp || z.err != nil || z.step > atBlock {
		return Place{}, false
	}
	return Place{
		Bit:    (z.inOff+int64(z.ip))<<3 - int64(z.nbits) + int64(z.skip),
		Out:    z.outOff + int64(z.wp),
		Member: z.step == atMember,
	}, true
}

// Window appends the last min(WindowSize, output of this member) bytes that
// Read returned to dst, the window given to Resume counted as such.
func (z *Reader) Window(dst []byte) []byte {
	return append(dst, z.out[max(min(z.lo, z.rp), z.rp-WindowSize):z.rp]...)
}

// decode decompresses to the end of the block or until out is full. All of out
// has been returned.
func (z *Reader) decode() error {
	if z.wp >= outFull {
		z.slide()
	}
	if z.skip > 0 {
		if err := z.need(z.skip); err != nil {
			return err
		}
		z.drop(z.skip)
		z.skip = 0
	}
	if z.step == atMember {
		if err := z.readHeader(); err != nil {
			return err
		}
	}
	if z.step == atBlock {
		if err := z.readBlock(); err != nil {
			return err
		}
	}
	start := z.wp
	var err error
	if z.step == inStored {
		err = z.copyStored()
	} else {
		err = z.decodeCodes()
	}
	z.sum(z.out[start:z.wp])
	if err == nil && z.step == atBlock && z.final {
		err = z.endMember()
	}
	return err
}

// slide moves the window to the beginning of out.
func (z *Reader) slide() {
	n := z.wp - WindowSize
	copy(z.out[:WindowSize], z.out[n:z.wp])
	z.rp, z.wp = WindowSize, WindowSize
	// What falls below out[0] is farther back than any reference reaches.
	z.lo, z.floor = max(0, z.lo-n), max(0, z.floor-n)
	z.outOff += int64(n)
}

// malformed is ErrFormat with what is wrong, at the byte last used.
func (z *Reader) malformed(what string) error {
	return fmt.Errorf("%w: %s near byte %d", ErrFormat, what, z.inOff+int64(z.ip))
}
