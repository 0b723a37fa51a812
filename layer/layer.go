package layer

import (
	"context"
	"io"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrVerify: bytes do not have the digest they should have.
	ErrVerify = sentinel.New("verification failed", errdefs.ErrDataLoss)
	// ErrMalformed: a layer or its table of contents breaks its format or a
	// limit of this package.
	ErrMalformed = sentinel.New("malformed layer", errdefs.ErrInvalidArgument)
	// ErrPlain: the layer has no table of contents that can be trusted, so
	// that only Stream can index it. The error's text says why.
	ErrPlain = sentinel.New("no table of contents", errdefs.ErrNotImplemented)
)

// Source is a layer's blob where it lies, usually in a registry.
type Source interface {
	// Size is the length of the blob in bytes.
	Size() int64
	// ReadRange returns the blob's bytes [off, off+n). The reader yields
	// exactly n bytes or an error; the caller closes it. Retries are the
	// source's affair, and so is giving up. An error of class
	// errdefs.ErrNotImplemented says that there are no byte ranges, only the
	// whole of the blob.
	ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error)
}

// Store keeps a layer's spans. All methods may be called concurrently, by
// several processes too.
type Store interface {
	// Has reports whether span is present. It may be gone a moment later.
	Has(span int) bool
	// Read fills p with the bytes at addr, all within the spans
	// [first, first+n), and reports true; or reports false if one of them is
	// not present. It allocates nothing.
	Read(p []byte, addr int64, first, n int) (bool, error)
	// Put stores a whole span of verified bytes.
	Put(span int, addr int64, data []byte) error
}

// Sharer is a Store that other processes fill, too. A claim is theirs who hold
// it to fetch the spans [first, first+n), and is gone with its process.
type Sharer interface {
	// TryClaim claims spans, or reports false if somebody else, of this or
	// another process, has a claim on one of them.
	TryClaim(first, n int) (release func(), ok bool, err error)
	// Claim waits until nobody else has a claim on any of the spans.
	Claim(ctx context.Context, first, n int) (release func(), err error)
}

// Stage takes the address space of a layer while it is streamed, before its
// digests are proved. Nothing of it can be read before Commit.
type Stage interface {
	io.Writer
	// Commit makes the size bytes written so far the content of the layer's
	// store, all of its spans present.
	Commit(size int64, spans int) error
	// Close discards what was not committed.
	Close() error
}

// Resumable is a Stage that keeps what was written, and notes on it, when it is
// closed without a Commit.
type Resumable interface {
	// ReadAt reads what was written, by an earlier pass too.
	io.ReaderAt
	// Notes returns the notes that an earlier pass left, and how many bytes it
	// wrote. The last note may be incomplete.
	Notes() (notes []byte, size int64, err error)
	// Note keeps a note on what was written so far.
	Note(note []byte) error
	// Rewind replaces the notes and forgets what was written beyond size; the
	// next Write goes there.
	Rewind(size int64, notes []byte) error
}
