package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is a blob where it lies. Its methods may be called concurrently.
type Blob struct {
	from *Source
	desc ocispec.Descriptor
	at   atomic.Pointer[file] // nil before the first read
}

// Size is the blob's length in bytes as its descriptor tells.
func (b *Blob) Size() int64 { return b.desc.Size }

// ReadRange returns the bytes [off, off+n) of the blob. The reader yields
// exactly n bytes or an error, and obeys ctx.
func (b *Blob) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n < 0 || off > b.desc.Size || n > b.desc.Size-off {
		return nil, b.fail(fmt.Errorf("%w: bytes [%d, %d+%d) of %d", ErrMalformed, off, off, n, b.desc.Size))
	}
	f, err := b.file()
	if err != nil {
		return nil, b.fail(err)
	}
	return &stretch{b, f.reader(ctx, off, n), n}, nil
}

// stretch is a reader of exactly left more bytes of a blob.
type stretch struct {
	blob *Blob
	from io.Reader
	left int64
}

func (s *stretch) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.left -= int64(n)
	switch {
	case err == nil, errors.Is(err, io.EOF) && s.left == 0:
		return n, err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, s.blob.fail(err)
}

// Close has nothing to do: the file stays open for the next reader.
func (s *stretch) Close() error { return nil }

// ReadAt implements io.ReaderAt. It allocates nothing but for an error.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	f, err := b.file()
	if err != nil {
		return 0, b.fail(err)
	}
	n, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, b.fail(err)
	}
	return n, err
}

// file is where the blob lies, once it is known to have the right size.
func (b *Blob) file() (*file, error) {
	if f := b.at.Load(); f != nil {
		return f, nil
	}
	f, err := b.from.file(b.desc.Digest)
	switch {
	case errors.Is(err, ErrNotFound) && len(b.desc.URLs) > 0:
		return nil, fmt.Errorf("%w; it may be at %s", err, quote(b.desc.URLs[0]))
	case err != nil:
		return nil, err
	case f.size != b.desc.Size:
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrVerify, quote(f.name), f.size, b.desc.Size)
	}
	b.at.Store(f)
	return f, nil
}

func (b *Blob) fail(err error) error {
	return b.from.fail(fmt.Errorf("blob %s: %w", b.desc.Digest, err))
}
