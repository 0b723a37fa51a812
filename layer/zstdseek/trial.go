package zstdseek

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/zstd"
)

const maxHeld = 3 << 20 // bytes; a block more is held at most

// trial decodes blocks of a frame as if nothing came before them.
type trial struct {
	d    *zstd.Decoder
	in   pieces
	head []byte
	out  []byte // a block

	held    []byte // raw blocks not decoded yet, which a trial of nothing else need not do
	owed    int    // bytes of their output
	running bool
	cost    int64 // of the decoding so far, in bytes of compressed blocks' output
}

// begin starts at the place at. References of more than n bytes, or maxBlock
// if that is more, are held for such to before the place.
func (t *trial) begin(at Place, n int64) error {
	t.running = false
	if t.d == nil {
		d, err := newZstd()
		if err != nil {
			return err
		}
		t.d, t.out = d, make([]byte, maxBlock)
	}
	// The window is the decoder's memory. Blocks may be as long as it, and
	// maxBlock at most.
	t.head = appendHeader(t.head[:0], uint32(min(int64(at.Window), max(n, maxBlock))))
	t.in = append(t.in[:0], t.head)
	t.held, t.owed = t.held[:0], 0
	t.cost, t.running = 0, true
	return t.d.Reset(&t.in)
}

// decode decodes what f has run through, ends the trial if that is not want,
// and returns what it cost.
func (t *trial) decode(f *feed, want []byte) int64 {
	cost := int64(len(want))
	if f.kind != compressedBlock {
		cost /= 8 // a copy
	}
	t.cost += cost
	if f.kind == rawBlock && len(f.run) == blockHeader+len(want) && len(t.held) < maxHeld {
		t.held = append(t.held, f.run...)
		t.owed += len(want)
		return cost
	}
	t.running = !f.lost && t.catchUp()
	if t.running {
		t.in = append(t.in, f.run)
		n, err := t.d.Read(t.out)
		t.running = err == nil && len(t.in) == 0 && bytes.Equal(t.out[:n], want)
	}
	return cost
}

// catchUp decodes the blocks that were held. As they are raw, so is what comes
// out.
func (t *trial) catchUp() bool {
	if t.owed > 0 {
		t.in = append(t.in, t.held)
	}
	for t.owed > 0 {
		n, err := t.d.Read(t.out)
		if err != nil {
			return false
		}
		t.owed -= n
	}
	t.held = t.held[:0]
	return true
}

func (t *trial) close() {
	if t.d != nil {
		t.d.Close()
	}
}

// pieces reads slices one after the other.
type pieces [][]byte

func (p *pieces) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	if (*p)[0] = (*p)[0][n:]; len((*p)[0]) == 0 {
		*p = (*p)[1:]
	}
	return n, nil
}

// newZstd makes a decoder that starts no goroutines, and decodes block by
// block as it is read.
func newZstd(o ...zstd.DOption) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, append(o,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))...)
}
