package tree

import (
	"strings"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/internal/sentinel"
	"github.com/peelfs/peel/layer"
)

// ErrMalformed: the layers do not make a file system, or exceed a limit.
var ErrMalformed = sentinel.New("malformed image", errdefs.ErrInvalidArgument)

// File types and the mask that cuts them out of a mode, as Linux has them.
const (
	typeMask    = 0o170000
	typeSocket  = 0o140000
	typeSymlink = 0o120000
	typeFile    = 0o100000
	typeBlock   = 0o060000
	typeDir     = 0o040000
	typeChar    = 0o020000
	typeFIFO    = 0o010000
)

// Tree is the merged view of an image's layers. It is immutable; its tables
// may be mapped memory and must not be written to.
type Tree struct {
	Inodes  []Inode // row 0 is the root directory
	Entries []Entry // a directory's are contiguous, in byte order of name
	Extents []layer.Extent
	Xattrs  []layer.Xattr // an inode's are contiguous, in byte order of name
	Layers  []Layer       // bottom first, as given to Merge
	Pool    flat.Pool

	size int64
}

// Inode is one file object of the image. Ranges and strings of the embedded
// record refer to the tables of the Tree; Size of a symlink is the length of
// its target, Flags has Implicit where no layer describes the directory.
type Inode struct {
	layer.Inode
	Layer  uint32 // index of the layer that Addr and the extents belong to
	Nlink  uint32 // of a directory 2 + subdirectories, else the names that show
	Parent uint32 // row of the directory, or of the first one naming the file
	_      uint32
}

// Entry is one name in a directory.
type Entry struct {
	Name  flat.Str
	Inode uint32 // row
	Type  uint32 // S_IFMT bits of the inode's mode
}

// Layer identifies the layer index that rows and addresses were taken from.
type Layer struct {
	Blob     flat.Str // digest of the compressed layer
	Claim    flat.Str // digest of what was claimed of the layer, if it was
	AddrSize int64    // bytes
	Inodes   uint32
	Entries  uint32
	Spans    uint32
	Format   layer.FormatID
}

// Fits reports whether the tree was merged from these indexes, so that its
// addresses hold for them. It compares identities, not tables.
func (t *Tree) Fits(layers []*layer.Index) bool {
	if len(layers) != len(t.Layers) {
		return false
	}
	for i, x := range layers {
		l := t.Layers[i]
		same := identity(x)
		same.Blob, same.Claim = l.Blob, l.Claim
		if l != same || t.Pool.String(l.Blob) != x.Pool.String(x.Info.Blob) || t.Pool.String(l.Claim) != x.Pool.String(x.Info.Claim) {
			return false
		}
	}
	return true
}

// identity returns what identifies x, but for the strings.
func identity(x *layer.Index) Layer {
	return Layer{
		AddrSize: x.Info.AddrSize, Format: x.Info.Format,
		Inodes: uint32(len(x.Inodes)), Entries: uint32(len(x.Entries)), Spans: uint32(len(x.Spans)),
	}
}

// Size is the sum of the sizes of all regular files, bytes. It saturates.
func (t *Tree) Size() int64 { return t.size }

// Lookup returns the row of name in directory dir. It reports false if there
// is none or dir is no directory. It allocates nothing.
func (t *Tree) Lookup(dir uint32, name string) (row uint32, ok bool) {
	es := t.Children(dir)
	lo, hi := 0, len(es)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.Pool.String(es[mid].Name) < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(es) || t.Pool.String(es[lo].Name) != name {
		return 0, false
	}
	return es[lo].Inode, true
}

// Children returns the entries of directory dir in byte order of name; none if
// dir is no directory. "." and ".." are not among them.
func (t *Tree) Children(dir uint32) []Entry {
	r := t.Inodes[dir].Children
	return t.Entries[r.First : r.First+r.Count]
}

// Name returns the name of e without copying it.
func (t *Tree) Name(e Entry) string { return t.Pool.String(e.Name) }

// Link returns the target of the symlink at row, "" if it is none.
func (t *Tree) Link(row uint32) string { return t.Pool.String(t.Inodes[row].Link) }

// XattrsOf returns the extended attributes of row in byte order of name. The
// strings are in Pool.
func (t *Tree) XattrsOf(row uint32) []layer.Xattr {
	r := t.Inodes[row].Xattrs
	return t.Xattrs[r.First : r.First+r.Count]
}

// Xattr returns the value of the extended attribute name of row.
func (t *Tree) Xattr(row uint32, name string) (value string, ok bool) {
	for _, x := range t.XattrsOf(row) {
		if t.Pool.String(x.Name) == name {
			return t.Pool.String(x.Value), true
		}
	}
	return "", false
}

// HasXattrs reports whether any inode has extended attributes.
func (t *Tree) HasXattrs() bool { return len(t.Xattrs) > 0 }

// Path returns a path of row, absolute and clean; of a file with several names
// the first. It takes time in proportion to the directories on the way.
func (t *Tree) Path(row uint32) string {
	var names []string
	for row != 0 {
		parent := t.Inodes[row].Parent
		for _, e := range t.Children(parent) {
			if e.Inode == row {
				names = append(names, t.Name(e))
				break
			}
		}
		row = parent
	}
	var b strings.Builder
	for i := range names {
		b.WriteByte('/')
		b.WriteString(names[len(names)-1-i])
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

func isDir(mode uint32) bool { return mode&typeMask == typeDir }
