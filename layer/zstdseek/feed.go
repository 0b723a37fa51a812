package zstdseek

import (
	"bufio"
	"errors"
	"io"
)

// feed hands a stream to a decoder piece by piece, each a frame's header, a
// block or a checksum, and knows where in the stream the decoder is, which
// therefore must not read ahead.
type feed struct {
	r    *bufio.Reader
	off  int64  // bytes of the stream up to the end of the piece at hand
	rest []byte // of that piece, not yet handed over
	err  error  // why there is no further piece

	frame frame
	part  part
	head  [maxHeader]byte

	// Since the last call of mark:
	run    []byte // the blocks, none from before the last frame's beginning
	kind   kind   // of the last one
	frames int    // frames begun
	lost   bool   // run has not all of the blocks
}

// part is what comes next in a stream.
type part uint8

const (
	partFrame part = iota
	partBlock
	partSum
)

const readAhead = 32 << 10 // bytes; most reads go for whole blocks

func newFeed(r io.Reader) *feed {
	return &feed{r: bufio.NewReaderSize(r, readAhead)}
}

func (f *feed) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.err == nil {
			f.err = f.next()
		}
		if f.err != nil {
			return 0, f.err
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next reads the next piece.
func (f *feed) next() error {
	switch f.part {
	case partFrame:
		return f.nextFrame()
	case partBlock:
		return f.nextBlock()
	default:
		f.part = partFrame
		return f.fill(f.head[:checksum])
	}
}

// fill makes the next bytes of the stream the piece at hand.
func (f *feed) fill(b []byte) error {
	n, err := io.ReadFull(f.r, b)
	f.off += int64(n)
	f.rest = b
	return short(err)
}

// short makes of the end of the source the early end of a stream.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// nextFrame skips skippable frames and reads the header of the frame after
// them. The error is io.EOF if there is none.
func (f *feed) nextFrame() error {
	for {
		b, err := f.r.Peek(maxHeader)
		if len(b) == 0 || err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		f.frame, err = parseFrame(b)
		if err != nil {
			return err
		}
		if f.frame.window > 0 {
			f.part = partBlock
			f.frames++
			f.run = f.run[:0]
			return f.fill(f.head[:f.frame.header])
		}
		if err := f.skip(int64(f.frame.header) + f.frame.skip); err != nil {
			return err
		}
	}
}

func (f *feed) skip(n int64) error {
	for n > 0 {
		// What Discard takes is an int, of 32 bits somewhere.
		m, err := f.r.Discard(int(min(n, 1<<30)))
		f.off += int64(m)
		n -= int64(m)
		if err != nil {
			return short(err)
		}
	}
	return nil
}

func (f *feed) nextBlock() error {
	head, err := f.r.Peek(blockHeader)
	if err != nil {
		return short(err)
	}
	b, err := parseBlock(head)
	if err != nil {
		return err
	}
	f.kind = b.kind
	if b.last && f.frame.sum > 0 {
		f.part = partSum
	} else if b.last {
		f.part = partFrame
	}
	start := len(f.run)
	if start > maxBlock {
		// Blocks without output, one after the other.
		start, f.lost = 0, true
	}
	end := start + blockHeader + b.size
	if cap(f.run) < end {
		f.run = append(make([]byte, 0, max(end, blockHeader+maxBlock)), f.run[:start]...)
	}
	f.run = f.run[:end]
	return f.fill(f.run[start:])
}

// mark forgets what was read so far.
func (f *feed) mark() {
	f.run, f.frames, f.lost = f.run[:0], 0, false
}

// ended reports whether the decoder has all output of a frame, and where the
// frame ends in the stream.
func (f *feed) ended() (int64, bool) {
	switch f.part {
	case partFrame:
		return f.off, true
	case partSum:
		return f.off + checksum, true
	case partBlock:
	}
	if b, err := f.r.Peek(blockHeader); err != nil || string(b) != emptyLast {
		return 0, false
	}
	return f.off + blockHeader + int64(f.frame.sum), true
}

// ahead returns the kind of the block that comes next, and whether it can be
// decoded at all without what came before it.
func (f *feed) ahead() (kind, bool) {
	b, err := f.r.Peek(blockHeader + 1)
	if err != nil {
		return 0, false
	}
	h, err := parseBlock(b)
	// Literals of type 3 use the Huffman table of a block before: RFC 8878,
	// section 3.1.1.3.1.1.
	return h.kind, err == nil && (h.kind != compressedBlock || b[blockHeader]&3 != 3)
}
