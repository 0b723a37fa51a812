package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PlainError is ErrPlain with the reason in words for people.
type PlainError struct{ Reason string }

func (e *PlainError) Error() string { return e.Reason }

// Unwrap makes errors.Is(err, ErrPlain) true.
func (e *PlainError) Unwrap() error { return ErrPlain }

func plain(format string, args ...any) error {
	return &PlainError{Reason: fmt.Sprintf(format, args...)}
}

// tocFormat is a layer format with a table of contents.
type tocFormat struct {
	id FormatID
	// digest returns the digest that the layer's descriptor has for the table
	// of contents, or "" if the layer is not of this format.
	digest func(ocispec.Descriptor) string
	index  func(ctx context.Context, src Source, d ocispec.Descriptor, toc digest.Digest) (*Index, error)
}

// tocFormats returns the formats in the order in which they are tried.
func tocFormats() []tocFormat {
	return []tocFormat{
		{FormatZstdChunked, zstdChunkedDigest, indexZstdChunked},
		{FormatEstargz, estargzDigest, indexEstargz},
	}
}

// TOCDigest returns the digest of the table of contents that the layer's
// descriptor vouches for, if there is one that ReadIndex would use.
func TOCDigest(d ocispec.Descriptor) (digest.Digest, bool) {
	for _, f := range tocFormats() {
		if toc := digest.Digest(f.digest(d)); toc.Validate() == nil {
			return toc, true
		}
	}
	return "", false
}

// ReadIndex makes the index of a layer from the table of contents in the
// layer's blob: with one read where the descriptor says where it lies or a
// guess finds it, with two otherwise, with none where there is no table to be
// trusted. A table or footer that proves wrong is read again, as a span is.
// Errors are ErrPlain, ErrVerify, ErrMalformed and the source's own.
func ReadIndex(ctx context.Context, src Source, d ocispec.Descriptor) (*Index, error) {
	for _, f := range tocFormats() {
		value := f.digest(d)
		if value == "" {
			continue
		}
		toc, err := digest.Parse(value)
		if err != nil {
			return nil, plain("%s layer with a TOC digest %q that is none", f.id, value)
		}
		x, err := f.index(ctx, src, d, toc)
		for try := 0; try < readTries(err) && ctx.Err() == nil; try++ {
			if err := pause(ctx, try); err != nil {
				return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
			}
			x, err = f.index(ctx, src, d, toc)
		}
		if err != nil && !errors.Is(err, ErrPlain) {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		return x, err
	}
	return nil, plain("no annotation with the digest of a table of contents")
}

// readTries is how often to ask again after err. What a digest proves wrong is
// not the table. A footer has no digest: wrong bytes look like a layer that is
// not what its annotation says, or that breaks a limit, and such layers exist.
func readTries(err error) int {
	switch {
	case errors.Is(err, ErrVerify):
		return maxAgain
	case errors.Is(err, ErrPlain), errors.Is(err, ErrMalformed):
		return 1
	}
	return 0
}

// isZstd reports whether a layer's media type says zstd.
func isZstd(d ocispec.Descriptor) bool { return strings.HasSuffix(d.MediaType, "zstd") }

// isGzip reports whether a layer's media type says gzip, in OCI's or Docker's words.
func isGzip(d ocispec.Descriptor) bool { return strings.HasSuffix(d.MediaType, "gzip") }

// mismatch is ErrVerify: what should have the digest want has got.
func mismatch(what string, want, got digest.Digest) error {
	return fmt.Errorf("%w: %s: expected %s, got %s", ErrVerify, what, want, got)
}

// tailSize is how much of a blob's end to read in the hope that it holds the
// whole table of contents. Tables measure one to two per cent of a blob.
func tailSize(blob int64) int64 {
	const least, most = 64 << 10, 4 << 20
	return min(blob, max(least, min(blob/50, most)))
}

// tail is the end of a blob.
type tail struct {
	src   Source
	off   int64 // of bytes in the blob
	bytes []byte
}

func readTail(ctx context.Context, src Source) (*tail, error) {
	n := tailSize(src.Size())
	bytes, err := readRange(ctx, src, src.Size()-n, n)
	return &tail{src: src, off: src.Size() - n, bytes: bytes}, err
}

// last returns the blob's last n bytes, nil if it has fewer.
func (t *tail) last(n int) []byte {
	if len(t.bytes) < n {
		return nil
	}
	return t.bytes[len(t.bytes)-n:]
}

// open reads the blob's bytes [off, off+n), asking only for those the tail
// does not hold. The caller closes body.
func (t *tail) open(ctx context.Context, off, n int64) (r *rangeReader, body io.Closer, err error) {
	if off >= t.off {
		return &rangeReader{r: &sliceReader{t.bytes[off-t.off:][:n]}, left: n}, io.NopCloser(nil), nil
	}
	head := min(n, t.off-off)
	r, body, err = openRange(ctx, t.src, off, head)
	if err != nil {
		return nil, nil, err
	}
	return &rangeReader{r: io.MultiReader(r, &sliceReader{t.bytes[:n-head]}), left: n}, body, nil
}

type sliceReader struct{ p []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.p) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.p)
	r.p = r.p[n:]
	return n, nil
}

func closing(c io.Closer, err error) error { return errors.Join(err, c.Close()) }
