package inflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
)

// Packer compresses windows for keeping.
type Packer struct {
	w   *flate.Writer
	buf bytes.Buffer
}

// NewPacker returns a Packer.
func NewPacker() *Packer {
	return new(Packer)
}

// Pack appends the compressed window to dst.
func (p *Packer) Pack(dst, window []byte) []byte {
	p.buf.Reset()
	if p.w == nil {
		p.w, _ = flate.NewWriter(&p.buf, 9)
	} else {
		p.w.Reset(&p.buf)
	}
	_, _ = p.w.Write(window)
	_ = p.w.Close()
	return append(dst, p.buf.Bytes()...)
}

// Unpack appends to dst the window that Pack was given. It refuses, with
// ErrFormat, what unpacks to more than WindowSize bytes.
func Unpack(dst, packed []byte) ([]byte, error) {
	r := flate.NewReader(bytes.NewReader(packed))
	out, err := io.ReadAll(io.LimitReader(r, WindowSize+1))
	if err != nil || len(out) > WindowSize {
		return dst, fmt.Errorf("%w: window: %w", ErrFormat, err)
	}
	return append(dst, out...), nil
}
