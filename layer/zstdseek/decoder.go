package zstdseek

import (
	"io"

	"github.com/klauspost/compress/zstd"
)

// Decoder decodes stretches between places. It can be used again after an
// error.
type Decoder struct {
	d   *zstd.Decoder
	buf []byte
}

// NewDecoder returns a decoder. The caller calls Close.
func NewDecoder() (*Decoder, error) {
	d, err := newZstd(zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	return &Decoder{d: d}, nil
}

// Close releases the decoder's memory. It can no longer be used.
func (d *Decoder) Close() { d.d.Close() }

// Decode decodes the stretch that begins at at into dst, which is as long as
// the stretch. The stream's bytes from at.In to the next place, or to the end
// of the stream, are src. The error is ErrFormat or io.ErrUnexpectedEOF, also
// if the stretch has another length; dst then has nothing of value.
func (d *Decoder) Decode(dst, src []byte, at Place) error {
	var err error
	if d.buf, err = whole(d.buf[:0], src, at.Window); err != nil {
		return err
	}
	got, err := d.d.DecodeAll(d.buf, dst[:0:len(dst)])
	if err != nil {
		return malformed("%w", err)
	}
	if len(got) != len(dst) {
		return malformed("stretch of %d bytes, expected %d", len(got), len(dst))
	}
	// The library may have moved to memory of its own.
	if len(got) > 0 && &got[0] != &dst[0] {
		copy(dst, got)
	}
	return nil
}

// whole appends the frames of a stretch to b, so that they can be decoded:
// without checksums and lengths, which are of frames that may not be whole,
// and with a beginning and an end. With a window, src begins in the middle of
// a frame and reaches no further frame that has output.
func whole(b, src []byte, window uint32) ([]byte, error) {
	if window > maxWindow {
		return b, malformed("frame with a window of %d bytes, at most %d", window, maxWindow)
	}
	if window > 0 {
		b, _, err := blocks(appendHeader(b, window), src)
		return b, err
	}
	for len(src) > 0 {
		f, err := parseFrame(src)
		if err != nil {
			return b, err
		}
		src = src[f.header:]
		if f.window == 0 {
			if src, err = after(src, f.skip); err != nil {
				return b, err
			}
			continue
		}
		b, src, err = blocks(appendHeader(b, f.window), src)
		if err != nil {
			return b, err
		}
		// Only a stretch that ends in the middle of a frame leaves nothing.
		if len(src) > 0 {
			if src, err = after(src, int64(f.sum)); err != nil {
				return b, err
			}
		}
	}
	return b, nil
}

// blocks appends the blocks that src begins with to b, up to the end of the
// frame or of src, and returns the rest of src.
func blocks(b, src []byte) (all, rest []byte, err error) {
	for off := 0; off < len(src); {
		if len(src)-off < blockHeader {
			return b, nil, io.ErrUnexpectedEOF
		}
		x, err := parseBlock(src[off:])
		if err != nil {
			return b, nil, err
		}
		if off += blockHeader + x.size; off > len(src) {
			return b, nil, io.ErrUnexpectedEOF
		}
		if x.last {
			return append(b, src[:off]...), src[off:], nil
		}
	}
	return append(append(b, src...), emptyLast...), nil, nil
}

// after returns src without its first n bytes.
func after(src []byte, n int64) ([]byte, error) {
	if n > int64(len(src)) {
		return nil, io.ErrUnexpectedEOF
	}
	return src[n:], nil
}
