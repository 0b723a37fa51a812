package zstdseek

import (
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Place is where decompression can begin.
type Place struct {
	In, Out int64 // bytes of the stream and of its output before the place
	// Window is 0 where a frame begins. In the middle of a frame, where blocks
	// follow, it is the frame's window size in bytes, as far as a window
	// descriptor can tell: at most 128 MiB.
	Window uint32
}

const (
	// freeCost is what failed trials may cost in any stream, in bytes.
	freeCost = 1 << 20
	// compressedShare and rawShare are the part of the output, one in so
	// many bytes, that failed trials may cost beyond that before no further
	// one begins at a block that is compressed, or is not. The latter holds
	// more often.
	compressedShare = 16
	rawShare        = 4
)

// Reader decompresses a zstd stream and finds its places.
type Reader struct {
	least int64
	feed  *feed
	main  *zstd.Decoder
	// newer tries the last place, if that is in the middle of a frame, and
	// older the one before it, to fall back on.
	newer, older *trial

	block []byte // for those that the caller's buffer has no space for
	rest  []byte // of it, not yet returned
	err   error

	out    int64 // bytes decoded
	open   int64 // cost of the trials in this frame whose places may be given up
	failed int64 // cost of trials for nothing
	here   Place // the candidate behind the last block
	cut    bool  // there is one
	ended  bool  // it is behind a frame
	places []Place
}

// NewReader returns a reader of the stream that r yields. A stretch has least
// bytes of output or more, from 1 on, where it ends inside of a frame; whole
// frames are put together until they have a quarter of that. The caller calls
// Close.
func NewReader(r io.Reader, least int64) (*Reader, error) {
	d, err := newZstd()
	if err != nil {
		return nil, err
	}
	z := &Reader{least: max(least, 1), feed: newFeed(r), main: d, newer: new(trial), older: new(trial), places: []Place{{}}}
	return z, d.Reset(z.feed)
}

// Close releases the reader's memory. It can no longer be read.
func (z *Reader) Close() {
	z.main.Close()
	z.newer.close()
	z.older.close()
	z.err = io.ErrClosedPipe
}

// Boundary returns the candidate behind the last byte that Read returned, if
// there is one. No two candidates have the same Out. Whether it holds is known
// at the end of the stream.
func (z *Reader) Boundary() (Place, bool) {
	if !z.cut || len(z.rest) > 0 {
		return Place{}, false
	}
	return z.here, true
}

// Places returns the candidates that hold, in the order of the stream, the
// first being its beginning. It is for when Read has returned io.EOF.
func (z *Reader) Places() []Place { return z.places }

// Read returns output up to the end of a block at most.
func (z *Reader) Read(p []byte) (int, error) {
	if len(z.rest) == 0 && z.err == nil && len(p) >= maxBlock {
		return z.next(p[:maxBlock])
	}
	if len(z.rest) == 0 && z.err == nil && len(p) > 0 {
		if z.block == nil {
			z.block = make([]byte, maxBlock)
		}
		n, _ := z.next(z.block)
		z.rest = z.block[:n]
	}
	if len(z.rest) == 0 {
		return 0, z.err
	}
	n := copy(p, z.rest)
	z.rest = z.rest[n:]
	return n, nil
}

// next decodes the next block that has output into p, which has maxBlock
// bytes.
func (z *Reader) next(p []byte) (int, error) {
	z.feed.mark()
	n, err := z.main.Read(p)
	if err != nil {
		z.here, z.cut = Place{}, false
		z.err = z.failure(err)
		return 0, z.err
	}
	if z.feed.frames > 0 && !z.ended {
		// The frame ended unnoticed, with blocks that have no output and
		// are not what encoders write. No candidate can be where it ended,
		// since there was one of the same Out.
		z.giveUp()
	}
	z.out += int64(n)
	z.try(p[:n])
	z.settle()
	return n, nil
}

// failure is what the end of the stream is to the caller.
func (z *Reader) failure(err error) error {
	switch {
	case z.feed.err == nil:
		return malformed("%w", err)
	case errors.Is(z.feed.err, io.EOF):
		z.finish()
		return io.EOF
	}
	return z.feed.err
}

// try has the trials decode the last block.
func (z *Reader) try(want []byte) {
	for _, t := range []*trial{z.newer, z.older} {
		if t.running {
			z.open += t.decode(z.feed, want)
		}
	}
	last := z.last()
	if last.Window == 0 || z.newer.running {
		return
	}
	if z.older.running {
		z.places = z.places[:len(z.places)-1]
		z.failed, z.open = z.failed+z.newer.cost, z.open-z.newer.cost
		z.newer, z.older = z.older, z.newer
		return
	}
	z.giveUp()
}

// giveUp drops the places in the middle of this frame. Each reaches up to the
// next one only, and the last one does not hold.
func (z *Reader) giveUp() {
	for z.last().Window != 0 {
		z.places = z.places[:len(z.places)-1]
	}
	z.newer.running, z.older.running = false, false
	z.failed, z.open = z.failed+z.open, 0
}

// settle decides what the end of the last block is.
func (z *Reader) settle() {
	z.here, z.cut = Place{}, false
	end, ended := z.feed.ended()
	if z.ended = ended; ended {
		z.newer.running, z.older.running, z.open = false, false, 0
		// A stretch that begins in the middle of a frame ends with it.
		if z.last().Window != 0 || z.since() >= max(z.least/4, 1) {
			z.announce(Place{In: end, Out: z.out})
		}
		return
	}
	if z.since() < z.least || !z.affordable() {
		return
	}
	at := Place{In: z.feed.off, Out: z.out, Window: z.feed.frame.window}
	// Of what failed before, the older one has become the newer.
	if z.older.begin(at, 4*z.least) == nil {
		z.newer, z.older = z.older, z.newer
		z.announce(at)
	}
}

func (z *Reader) announce(at Place) {
	z.here, z.cut = at, true
	z.places = append(z.places, at)
}

func (z *Reader) last() Place { return z.places[len(z.places)-1] }

// since is the output since the last place.
func (z *Reader) since() int64 { return z.out - z.last().Out }

// affordable reports whether a trial is worth what it may cost.
func (z *Reader) affordable() bool {
	k, possible := z.feed.ahead()
	share := int64(compressedShare)
	if k != compressedBlock {
		share = rawShare
	}
	return possible && z.failed <= freeCost+z.out/share
}

// finish completes the places at the end of the stream. Behind the last one
// there is output.
func (z *Reader) finish() {
	if !z.ended {
		z.giveUp()
	}
	for len(z.places) > 1 && z.since() == 0 {
		z.places = z.places[:len(z.places)-1]
	}
}
