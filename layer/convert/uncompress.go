package convert

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds a zstd frame's window, bytes: what zstd --ultra asks for.
const maxWindow = 128 << 20

// Uncompress returns the tar of a blob, whatever compression its first bytes
// show: gzip, zstd or none. Its errors are ErrMalformed, or the reader's own.
// Closing it does not close r.
func Uncompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(sourceReader{r}, 1<<20)
	magic, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, compressed(err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(in)
		if err != nil {
			return nil, compressed(err)
		}
		return &uncompressed{zr, func() {}}, nil
	case isZstd(magic):
		zr, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, compressed(err)
		}
		return &uncompressed{zr, zr.Close}, nil
	}
	return &uncompressed{in, func() {}}, nil
}

// isZstd recognises frames and skippable frames (RFC 8878, section 3.1).
func isZstd(magic []byte) bool {
	return bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

type uncompressed struct {
	io.Reader
	close func()
}

func (u *uncompressed) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = compressed(err)
	}
	return n, err
}

func (u *uncompressed) Close() error {
	u.close()
	return nil
}

// sourceReader marks the errors of a source.
type sourceReader struct{ r io.Reader }

func (s sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &readError{err}
	}
	return n, err
}

func compressed(err error) error {
	var read *readError
	if errors.As(err, &read) {
		return read.error
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
