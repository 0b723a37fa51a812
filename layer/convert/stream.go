package convert

import (
	"context"
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// readError is an error of the layer's source, told from those that say that
// the bytes are no tar.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// ctxReader reads until ctx ends. It is made for one call of Layer, which is
// why it may hold a context.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // see above
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, &readError{context.Cause(r.ctx)}
	}
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &readError{err}
	}
	return n, err
}

// sums counts and digests what is written to w.
type sums struct {
	w io.Writer
	n int64
	h hash.Hash
}

func newSums(w io.Writer) *sums { return &sums{w: w, h: digest.SHA256.Hash()} }

func (s *sums) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	s.h.Write(p[:n])
	return n, err
}

func (s *sums) digest() digest.Digest { return digest.NewDigest(digest.SHA256, s.h) }
