package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrMalformed: the layer is no tar archive, or one that breaks a limit.
	ErrMalformed = sentinel.New("malformed layer", errdefs.ErrInvalidArgument)
	// ErrUnrepresentable: a right layer that a table of contents cannot hold.
	ErrUnrepresentable = sentinel.New("no table of contents can hold this", errdefs.ErrNotImplemented)
	// ErrFormat: not the name of a format that can be written.
	ErrFormat = sentinel.New("unknown format", errdefs.ErrInvalidArgument)
)

// Format is a layer format with a table of contents.
type Format string

// The formats that can be written.
const (
	Estargz     Format = "estargz"
	ZstdChunked Format = "zstd:chunked" // as containers/storage writes it
)

// ParseFormat reads the name of a format. The error is an ErrFormat.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Estargz, ZstdChunked:
		return f, nil
	}
	return "", fmt.Errorf("%w %.40q: it is one of %s, %s", ErrFormat, s, Estargz, ZstdChunked)
}

// DefaultChunk is the most bytes of a file in one chunk: what a read of one
// byte fetches. About as long as a round trip to a registry takes to fetch.
const DefaultChunk = 1 << 20

// Options say what a layer is converted to.
type Options struct {
	Format Format
	// Chunk is the most bytes of a file in one chunk, [4 KiB, 64 MiB];
	// DefaultChunk if zero.
	Chunk int
	// Dir is where an eStargz layer's tar is spooled; os.TempDir if empty.
	Dir string
	// Profile lists the paths that are needed first, in that order. Only
	// eStargz has an order of its own: see the package's documentation.
	Profile []string
}

// Result describes a converted layer.
type Result struct {
	Desc   ocispec.Descriptor // media type, digest, size and the format's annotations
	DiffID digest.Digest      // of the tar within
	Tar    int64              // bytes of that tar
	// Prioritized are the paths of the profile that the layer has.
	Prioritized []string
}

// Layer converts a layer: it reads the tar whole and writes the blob. What it
// has written is of no use if it returns an error.
func Layer(ctx context.Context, tar io.Reader, w io.Writer, o Options) (Result, error) {
	switch {
	case o.Chunk == 0:
		o.Chunk = DefaultChunk
	case o.Chunk < minChunk || o.Chunk > maxChunk:
		return Result{}, fmt.Errorf("%w: chunks of %d bytes, they may have %d to %d", errdefs.ErrInvalidArgument, o.Chunk, minChunk, maxChunk)
	}
	in := &ctxReader{ctx, tar}
	switch o.Format {
	case Estargz:
		return toEstargz(ctx, in, w, o)
	case ZstdChunked:
		return toZstdChunked(in, w, o)
	}
	return Result{}, fmt.Errorf("%w %q", ErrFormat, string(o.Format))
}

// Limits of a layer; those of package layer, which would refuse the result.
const (
	minChunk   = 4 << 10
	maxChunk   = 64 << 20
	maxEntries = 1_000_000
	maxNames   = 1 << 30 // bytes of all names and targets
	maxTar     = 1 << 40 // bytes of all files, holes filled
)

// quota counts what of the limits a layer has used.
type quota struct {
	entries      int
	names, bytes int64
}

// spend counts an entry.
func (q *quota) spend(names int, size int64) error {
	q.entries++
	q.names += int64(names)
	q.bytes += size
	switch {
	case q.entries > maxEntries:
		return fmt.Errorf("%w: more than %d entries", ErrMalformed, maxEntries)
	case q.names > maxNames:
		return fmt.Errorf("%w: more than %d bytes of names", ErrMalformed, maxNames)
	case size < 0 || q.bytes < 0 || q.bytes > maxTar:
		return fmt.Errorf("%w: files of more than %d bytes", ErrMalformed, int64(maxTar))
	}
	return nil
}

// clean is the path that an entry's name means, without leading slash; "" is
// the root. What leaves the root stays in it.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// badTar is the error of what archive/tar, or the stream below it, returned.
func badTar(at int64, err error) error {
	var read *readError
	if errors.As(err, &read) {
		return read.error
	}
	return fmt.Errorf("%w: tar at %d: %w", ErrMalformed, at, err)
}

// about names the entry that err is about.
func about(name string, err error) error {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return fmt.Errorf("%q: %w", name, err)
}
