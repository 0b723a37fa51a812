package layer

import (
	"sync"

	"github.com/peelfs/peel/internal/flat"
)

// Index is everything known of one layer without its file data: what the
// layer's tar says of every path, and how the layer's address space is cut
// into spans. It is immutable, and a view of one flat file.
//
// Every reference between tables has been checked when an Index is returned
// by this package; users may follow them without bounds of their own.
type Index struct {
	Info    Info
	Inodes  []Inode  // row 0 is the root directory
	Entries []Entry  // a directory's entries are contiguous, in byte order of name
	Extents []Extent // of files with holes only
	Xattrs  []Xattr  // an inode's are contiguous, in byte order of name
	Spans   []Span   // by address, without overlap
	Chunks  []Chunk  // by address; a span's are contiguous
	// Digests are those of all Chunks, and of Files that are not one chunk, in
	// order, to be looked up; there are none if those of Chunks are not OfData.
	Digests []DigestRef
	// Checkpoints are parallel to Spans in gzip and zstd layers; there are none
	// if the format allows none, and then the blob is read from its beginning.
	Checkpoints []Checkpoint
	Windows     []byte // of Checkpoints, packed
	Files       []File // those whose digest is known, by digest
	Pool        flat.Pool

	decoders sync.Pool // of *spanDecoder: idle ones, since their tables are costly to make
}

// Info is the one record that describes the layer as a whole.
type Info struct {
	Blob     flat.Str // digest of the compressed layer
	DiffID   flat.Str // digest of the uncompressed tar; empty if not proved
	Claim    flat.Str // digest of the table of contents or index this was made from; empty for streamed layers
	Origin   flat.Str // what was made from: words for people
	Reason   flat.Str // why the layer had to be streamed; empty if it did not
	Resident flat.Str // why spans cannot be fetched by themselves; empty if they can
	BlobSize int64    // bytes
	AddrSize int64    // length of the address space, bytes
	Landmark int64    // of the blob: its first so many bytes are what the image's maker wants fetched beforehand; NoLandmark: nothing; 0: nobody said
	Format   FormatID
	Trust    Trust
	Digests  DigestsOf
	_        uint32
}

// NoLandmark as Info.Landmark: nothing is to be fetched before it is read.
const NoLandmark = -1

// DigestsOf says what the digests of an index's chunks are of.
type DigestsOf uint32

const (
	// OfData: of the chunk's bytes in the address space.
	OfData DigestsOf = iota
	// OfBlob: of the span's bytes in the blob, as SOCI has them. They do not
	// prove the bytes of the address space, see lead.
	OfBlob
)

// FormatID names a layer format in an index file.
type FormatID uint32

// The formats. The numbers are part of the index file.
const (
	FormatTar FormatID = 1 + iota
	FormatGzip
	FormatZstd
	FormatEstargz
	FormatZstdChunked
	FormatFile // the blob is one file of an artifact
)

// Trust says what vouches for an index.
type Trust uint32

const (
	// Claimed: the manifest vouches for a table of contents that somebody
	// else wrote; nobody has compared it with the tar yet.
	Claimed Trust = 1 + iota
	// Proved: the whole blob has passed by, blob digest and diffID matched.
	Proved
)

// Inode is one file object. Mode, owner and times are as in inode(7).
type Inode struct {
	Size      int64 // bytes; 0 for anything but files and symlinks
	Addr      int64 // where a file's data begins, if Extents is empty
	MtimeSec  int64 // since 1970-01-01T00:00:00Z, may be negative
	MtimeNsec uint32
	Mode      uint32 // S_IFMT type and permission bits of Linux
	UID, GID  uint32
	RdevMajor uint32
	RdevMinor uint32
	Link      flat.Str   // target of a symlink
	Extents   flat.Range // a file's data, if it is not one run at Addr; one of no length if there is none
	Xattrs    flat.Range
	Children  flat.Range // a directory's entries
	Flags     InodeFlags
	_         uint32
}

// InodeFlags are properties of a directory in its layer.
type InodeFlags uint32

const (
	// Implicit: no tar entry described the directory; a lower layer's
	// attributes win over the ones made up here.
	Implicit InodeFlags = 1 << iota
	// Opaque: the entries of lower layers are hidden.
	Opaque
)

// None stands for "no row".
const None = ^uint32(0)

// Entry is one name in a directory.
type Entry struct {
	Name  flat.Str
	Inode uint32 // row in Inodes; None unless Kind is EntryInode
	Kind  EntryKind
	// Link is the path, relative to the root and clean, of the lower layer's
	// file that an EntryLowerLink is another name of.
	Link flat.Str
}

// EntryKind says what a name stands for.
type EntryKind uint32

const (
	// EntryInode: an inode of this layer; hard links share one.
	EntryInode EntryKind = 1 + iota
	// EntryWhiteout: the name hides a lower layer's entry and is not shown.
	EntryWhiteout
	// EntryLowerLink: a hard link to a file that is not in this layer.
	EntryLowerLink
)

// Extent is a run of a file's data: file bytes [Off, Off+Len) are the
// addresses [Addr, Addr+Len). Bytes of a file in no extent are zero.
type Extent struct{ Off, Addr, Len int64 }

// Xattr is an extended attribute with its full name ("user.mime_type").
type Xattr struct{ Name, Value flat.Str }

// Span is the unit that is fetched, decoded, verified and stored: addresses
// [Addr, Addr+Len) come from the blob's bytes [Off, Off+CLen), or from all of
// them in a gzip or zstd layer without checkpoints. Spans of one layer follow
// each other without gap, and in the other layers in the order of the blob; in
// a gzip layer one may begin with the byte that the one before it ends with.
type Span struct {
	Addr, Len int64
	Off, CLen int64
	Chunks    flat.Range // at least one; they cover the span without gap
}

// Chunk is the unit that has a digest: one span is one chunk, but for spans
// whose compressed bytes hold several files' data (eStargz built with a
// minimum chunk size).
type Chunk struct {
	Addr   int64
	Len    uint32
	Inner  uint32 // offset in the span's decompressed bytes
	SHA256 [32]byte
}

// DigestRef is the beginning of the digest of a chunk or file.
type DigestRef struct {
	Prefix uint64 // the first 8 bytes, as a number
	Row    uint32 // in Chunks, or in Files if File is 1
	File   uint32
}

// Checkpoint says how decoding begins at the span of the same number.
type Checkpoint struct {
	Window flat.Range // gzip: the packed window, in Windows
	Frame  uint32     // zstd: the window size, in bytes, of the frame that the span begins in the middle of; 0 where a frame begins
	Bit    uint8      // gzip: bits of the span's first byte that belong to the span before
	Member uint8      // gzip: 1 where a member begins
	_      [2]uint8
}

// File is the digest of a regular file's content, holes included.
type File struct {
	SHA256 [32]byte
	Inode  uint32 // row in Inodes
}
