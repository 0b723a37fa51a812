package ztoc

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/sentinel"
)

// ErrFormat: a zTOC or an index breaks its format or a limit of this package,
// or a layer has something that zTOCs cannot express.
var ErrFormat = sentinel.New("malformed SOCI data", errdefs.ErrInvalidArgument)

// WindowSize is the length in bytes of the history that DEFLATE refers to.
const WindowSize = 32 << 10

// DefaultSpanSize is the least number of uncompressed bytes between two
// checkpoints, as SOCI's tools have it by default.
const DefaultSpanSize = 4 << 20

// version is what SOCI's tools write for the version of a zTOC.
const version = "0.9"

// Limits on what comes from outside; see the package comment.
const (
	maxTOC     = 512 << 20 // bytes of a zTOC
	maxFiles   = 1_000_000 // entries of a layer
	maxSpans   = 1 << 20   // spans of a layer
	maxSpan    = 128 << 20 // bytes of a span, compressed as well as not
	maxArchive = 1 << 40   // bytes of a layer, compressed as well as not
	maxIndex   = 4 << 20   // bytes of an index manifest; registries take no larger ones
)

// Compression is how a layer is compressed, as the format numbers it.
type Compression int8

const (
	Gzip         Compression = 1
	Uncompressed Compression = 2
)

func (c Compression) String() string {
	switch c {
	case Gzip:
		return "gzip"
	case Uncompressed:
		return "uncompressed"
	}
	return fmt.Sprintf("compression %d", int8(c))
}

// The types of a File.
const (
	TypeReg      = "reg"
	TypeDir      = "dir"
	TypeSymlink  = "symlink"
	TypeHardlink = "hardlink"
	TypeChar     = "char"
	TypeBlock    = "block"
	TypeFifo     = "fifo"
)

// TOC is a zTOC: what a layer holds and where its stream can be entered.
type TOC struct {
	// Version is that of the format; nobody depends on it so far.
	Version   string
	BuildTool string
	// CompressedSize is the size of the layer's blob in bytes.
	CompressedSize int64
	// UncompressedSize is where the tar ends, in bytes; see the package comment.
	UncompressedSize int64
	// Files are the entries of the tar, in its order.
	Files       []File
	Compression Compression
	// SpanSize is what the spans were cut by, in uncompressed bytes: exactly
	// that many of a tar, at least one more of a gzip file.
	SpanSize int64
	// Spans tile both archives, but for the gzip header before the first.
	Spans []Span
}

// File is an entry of a tar, with the words of tar(5).
type File struct {
	Name string // as it stands in the tar, not cleaned
	Type string // one of the Type constants
	// Offset and Size are where the content is in the uncompressed tar, in
	// bytes. The size of anything but a regular file means nothing.
	Offset, Size       int64
	Linkname           string
	Mode               int64 // as in the tar, maybe with bits that are no permissions
	UID, GID           uint32
	Uname, Gname       string
	ModTime            time.Time // UTC; the zero time if it is not known
	Devmajor, Devminor int64
	// PAX are the records of the entry's extended header, as they stand there:
	// extended attributes have the prefix SCHILY.xattr. It may be nil.
	PAX map[string]string
}

// Span is one stretch between two checkpoints.
type Span struct {
	// Digest is that of the compressed bytes [Off, Off+CLen), always SHA-256.
	Digest digest.Digest
	// Off and CLen are where the span is in the blob, in bytes. If Bits is not
	// 0, its first byte is the last one of the span before.
	Off, CLen int64
	// Out and Len are where the span is in the uncompressed tar, in bytes. Len
	// can be 0, between checkpoints at the very beginning.
	Out, Len int64
	// Bits is how many bits of the byte at Off belong to the span, 0 to 7: the
	// highest ones. 0 means the whole byte.
	Bits uint8
	// Window is the uncompressed data before Out, WindowSize bytes, with zeros
	// in front if there is less. It is nil where none is needed: at the
	// beginning, and everywhere in a tar.
	Window []byte
}

// Bit is where the span begins, in bits of the blob, the lowest of a byte first:
// the place for the inflate package to begin at, except for the first span.
func (s *Span) Bit() int64 { return 8*s.whole() - int64(s.Bits) }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}
