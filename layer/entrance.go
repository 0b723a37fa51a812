package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/peelfs/peel/layer/inflate"
	"github.com/peelfs/peel/layer/zstdseek"
)

const (
	// gzipSpan is the least length of a gzip layer's spans in bytes. Shorter
	// ones make reads cheaper and indexes longer: see docs/formats.md for the
	// measurement.
	gzipSpan = 1 << 20
	// longSpan is what it grows to in large layers, to one in spanShare of the
	// blob, so that their windows do not fill the memory of the pass.
	longSpan  = 4 << 20
	spanShare = 256
	// freeSpan is the least length of spans that begin where no window has to
	// be kept: at gzip members, and anywhere in a tar.
	freeSpan = 512 << 10
	// zstdSpan is the least length of a zstd layer's spans.
	zstdSpan = 1 << 20
	// maxStretch is how long a span may get, in bytes, before the layer is
	// better read from its beginning.
	maxStretch = 32 << 20
)

// entrance is where a blob can be entered: the beginning of a span.
type entrance struct {
	In     int64  `json:"in"`  // the byte of the blob that decoding begins with
	Out    int64  `json:"out"` // the address of what comes out first
	Bit    uint8  `json:"bit,omitempty"`
	Member bool   `json:"member,omitempty"`
	Frame  uint32 `json:"frame,omitempty"`
	Window []byte `json:"window,omitempty"` // packed; set once the next entrance is known
}

// decoder yields a layer's tar and tells where its blob can be entered.
type decoder interface {
	// Read returns no later than at an entrance.
	io.Reader
	// entrance returns the place behind the bytes read so far, if it is one
	// that is worth it when the last one was n bytes before.
	entrance(n int64) (entrance, bool)
	// enter makes the place at hand the beginning of a span.
	enter()
	// left returns the packed window of the span begun last, once it is read.
	left() []byte
	// window returns the window at the place at hand, for resuming there; it is
	// good until the next call.
	window() []byte
	// hold returns those of the entrances that hold. The stream has ended.
	hold([]entrance) []entrance
	close()
}

// gzipDecoder enters at the ends of blocks and the beginnings of members.
type gzipDecoder struct {
	*inflate.Reader
	least   int64
	packer  inflate.Packer
	scratch []byte
}

func newGzipDecoder(size int64) *gzipDecoder {
	return &gzipDecoder{Reader: inflate.NewReader(nil), least: min(max(gzipSpan, size/spanShare), longSpan)}
}

func (d *gzipDecoder) entrance(n int64) (entrance, bool) {
	if n < min(d.least, freeSpan) {
		return entrance{}, false
	}
	at, ok := d.Boundary()
	if !ok || n < d.least && !at.Member {
		return entrance{}, false
	}
	return entrance{In: at.Bit / 8, Out: at.Out, Bit: uint8(at.Bit % 8), Member: at.Member}, true
}

func (d *gzipDecoder) enter() { d.Mark() }

func (d *gzipDecoder) left() []byte {
	d.scratch = d.Marked(d.scratch[:0])
	return d.packer.Pack(nil, d.scratch)
}

func (d *gzipDecoder) window() []byte {
	d.scratch = d.Window(d.scratch[:0])
	return d.scratch
}

func (d *gzipDecoder) close() {}

func (d *gzipDecoder) hold(all []entrance) []entrance { return all }

// zstdDecoder enters at frames, and at blocks that turn out to need nothing of
// what came before.
type zstdDecoder struct {
	*zstdseek.Reader
	in, out int64 // of the blob and the address space, where the reader began
}

func (d *zstdDecoder) entrance(int64) (entrance, bool) {
	at, ok := d.Boundary()
	return d.at(at), ok
}

func (d *zstdDecoder) at(p zstdseek.Place) entrance {
	return entrance{In: d.in + p.In, Out: d.out + p.Out, Frame: uint32(p.Window)}
}

func (d *zstdDecoder) enter()         {}
func (d *zstdDecoder) left() []byte   { return nil }
func (d *zstdDecoder) window() []byte { return nil }
func (d *zstdDecoder) close()         { d.Close() }

func (d *zstdDecoder) hold(all []entrance) []entrance {
	held := make(map[int64]bool)
	for _, p := range d.Places() {
		held[d.out+p.Out] = true
	}
	var kept []entrance
	for _, e := range all {
		if e.Out <= d.out || held[e.Out] {
			kept = append(kept, e)
		}
	}
	return kept
}

// tarDecoder enters anywhere.
type tarDecoder struct {
	io.Reader
	at int64
}

func (d *tarDecoder) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p[:min(int64(len(p)), freeSpan-d.at%freeSpan)])
	d.at += int64(n)
	return n, err
}

func (d *tarDecoder) entrance(n int64) (entrance, bool) {
	return entrance{In: d.at, Out: d.at}, n >= freeSpan
}

func (d *tarDecoder) enter()                         {}
func (d *tarDecoder) left() []byte                   { return nil }
func (d *tarDecoder) window() []byte                 { return nil }
func (d *tarDecoder) hold(all []entrance) []entrance { return all }
func (d *tarDecoder) close()                         {}

// errTooLong: a blob inflates beyond all measure, so that the rest of it is
// not worth reading.
var errTooLong = errors.New("decompressed layer")

// inflater yields the uncompressed bytes of a blob, whatever the compression.
type inflater struct {
	decoder
	format FormatID
	most   int64 // bytes that may come at all
	out    int64 // bytes that have come
	last   int64 // of them, where the span at hand began
}

// newInflater looks at the first bytes of a blob of size bytes to tell its
// compression: media types lie, magic numbers do not. The caller calls close.
func newInflater(r io.Reader, size int64) (*inflater, error) {
	in := &inflater{most: mostOutput(size)}
	br := bufio.NewReaderSize(r, 4<<10)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}): // RFC 1952, section 2.3.1
		in.format = FormatGzip
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), // RFC 8878, sections 3.1.1 and 3.1.2
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		in.format = FormatZstd
	default:
		in.format = FormatTar
	}
	return in, in.open(br, size, entrance{})
}

// newInflaterAt goes on in a blob of known format where at is.
func newInflaterAt(r io.Reader, size int64, f FormatID, at entrance) (*inflater, error) {
	in := &inflater{format: f, most: mostOutput(size), out: at.Out, last: at.Out}
	return in, in.open(r, size, at)
}

// mostOutput bounds what a blob of size bytes may unpack to.
func mostOutput(size int64) int64 { return min(maxAddr, freeRatio+maxRatio*min(size, maxAddr)) }

func (in *inflater) open(r io.Reader, size int64, at entrance) error {
	switch in.format {
	case FormatGzip:
		d := newGzipDecoder(size)
		if at.Out == 0 {
			d.Reset(r)
		} else {
			d.Resume(r, inflate.Place{Bit: 8*at.In + int64(at.Bit), Out: at.Out, Member: at.Member}, at.Window)
			d.Mark()
		}
		in.decoder = d
	case FormatZstd:
		zr, err := zstdseek.NewReader(r, zstdSpan)
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		in.decoder = &zstdDecoder{zr, at.In, at.Out}
	default:
		in.decoder = &tarDecoder{r, at.Out}
	}
	return nil
}

// fill fills p as far as the stream reaches, but not beyond an entrance.
// io.EOF, with or without bytes, is the end of the stream and nothing else.
func (in *inflater) fill(p []byte) (n int, e *entrance, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = in.Read(p[n:])
		n += m
		in.out += int64(m)
		if at, ok := in.entrance(in.out - in.last); ok && err == nil && in.out > in.last {
			in.last = in.out
			e = &at
			break
		}
	}
	if in.out > in.most {
		return n, nil, fmt.Errorf("%w: %w", errTooLong, limit("bytes", in.out, in.most))
	}
	return n, e, err
}

// fillAll fills p as far as the stream reaches.
func (in *inflater) fillAll(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, _, err = in.fill(p[n:])
		n += m
	}
	return n, err
}
