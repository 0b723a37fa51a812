package layer

import (
	"context"
	"fmt"
	"io"
)

// rangeReader reads a range of a blob and remembers why reading failed, so
// that a decoder's complaint is told from the source's.
type rangeReader struct {
	r    io.Reader
	left int64 // bytes that must still come
	err  error // the source's
}

func (r *rangeReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0:
		r.err = fmt.Errorf("%w, by %d bytes", errCutOff, r.left)
		return n, r.err
	case err != nil && err != io.EOF:
		r.err = err
	}
	return n, err
}

// openRange starts to read the blob's bytes [off, off+n). The caller closes
// body.
func openRange(ctx context.Context, src Source, off, n int64) (r *rangeReader, body io.Closer, err error) {
	if n == 0 {
		return &rangeReader{r: eof{}}, io.NopCloser(nil), nil
	}
	rc, err := src.ReadRange(ctx, off, n)
	if err != nil {
		return nil, nil, err
	}
	return &rangeReader{r: io.LimitReader(rc, n), left: n}, rc, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// readRange returns the blob's bytes [off, off+n); n must be small.
func readRange(ctx context.Context, src Source, off, n int64) (p []byte, err error) {
	r, body, err := openRange(ctx, src, off, n)
	if err != nil {
		return nil, err
	}
	p = make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return nil, closing(body, err)
	}
	return p, body.Close()
}
