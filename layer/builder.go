package layer

import (
	"path"
	"strings"
)

// Header is what a tar header or an entry of a table of contents says of one
// path.
type Header struct {
	Name                 string // as found: "./a", "/a", "a/" and "a/../b" are cleaned
	Mode                 uint32 // S_IFMT type and permission bits of Linux
	UID, GID             uint32
	Size                 int64 // bytes of a regular file
	MtimeSec             int64
	MtimeNsec            uint32
	RdevMajor, RdevMinor uint32
	Link                 string            // target of a symlink, or of a hard link
	Hardlink             bool              // only Name and Link count then
	Xattrs               map[string]string // by full name
	Addr                 int64             // of the data, if it is one run
	Extents              []Extent          // of the data, if not nil; by offset, without overlap
}

// File types of Linux, the same on every system that reads an index.
const (
	typeMask    = 0o170000
	typeFifo    = 0o010000
	typeChar    = 0o020000
	typeDir     = 0o040000
	typeBlock   = 0o060000
	typeRegular = 0o100000
	typeSymlink = 0o120000
	permMask    = 0o007777
)

// Names with a meaning of their own (OCI image specification, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// Builder makes an Index out of the headers of a layer, in their order. What
// it shows is what an eager extractor would leave behind: the last of several
// entries of one name wins, directories merge, missing parents are made, a
// parent that is a symlink of the same layer is followed within the root.
type Builder struct {
	inodes    []buildInode // row 0 is the root
	nodes     []node
	names     map[childKey]uint32 // row in nodes
	whiteouts map[childKey]struct{}
	pending   []uint32            // hard links, in nodes, whose target had not come yet
	sums      map[uint32][32]byte // digests of files, by row in inodes

	entries, extents int
	steps            int   // path components looked up
	strings          int64 // bytes

	lastDir   string // the directory found last, clean; names of one directory come together
	lastRow   uint32
	lastAdded uint32 // row of the inode that the last Add made, or None
}

type buildInode struct {
	Inode
	link    string
	xattrs  map[string]string
	extents []Extent
	parent  uint32 // of a directory: row in inodes
	first   uint32 // of a directory: its newest entry, row in nodes
}

// node is one name of a directory.
type node struct {
	name  string
	link  string // of a hard link without an inode
	inode uint32 // row in inodes, or None
	next  uint32 // the directory's next entry, or None
	dead  bool   // another entry took its place
}

type childKey struct {
	dir  uint32
	name string
}

// NewBuilder returns a Builder that holds the root directory only.
func NewBuilder() *Builder {
	b := &Builder{names: make(map[childKey]uint32), whiteouts: make(map[childKey]struct{}), sums: make(map[uint32][32]byte)}
	b.inodes = append(b.inodes, implicitDir(0))
	b.entries = 1
	return b
}

func implicitDir(parent uint32) buildInode {
	return buildInode{Inode: Inode{Mode: typeDir | 0o755, Flags: Implicit}, parent: parent, first: None}
}

// Add takes the next header. Its error is ErrMalformed with the path and what
// is wrong with it.
func (b *Builder) Add(h *Header) error {
	if err := b.add(h); err != nil {
		return malformed("%q: %w", clip(h.Name), err)
	}
	return nil
}

func (b *Builder) add(h *Header) error {
	b.lastAdded = None
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if err := b.count(1, int64(len(name)+len(h.Link))); err != nil {
		return err
	}
	if name == "." {
		return b.setRoot(h)
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if hidden(dir) || hidden(base) && base != opaqueName && strings.HasPrefix(base, whiteoutPrefix+whiteoutPrefix) {
		return nil // left over from aufs
	}
	row, err := b.dir(dir)
	if err != nil {
		return err
	}
	switch {
	case base == opaqueName:
		b.inodes[row].Flags |= Opaque
		return nil
	case hidden(base):
		return b.whiteout(row, strings.TrimPrefix(base, whiteoutPrefix))
	case h.Hardlink:
		return b.addLink(row, base, h.Link)
	}
	return b.addInode(row, base, h)
}

// hidden reports whether a component of the path marks a whiteout.
func hidden(name string) bool {
	return strings.HasPrefix(name, whiteoutPrefix) || strings.Contains(name, "/"+whiteoutPrefix)
}

func (b *Builder) setRoot(h *Header) error {
	if h.Hardlink || h.Mode&typeMask != typeDir {
		return errRootType
	}
	in, err := b.inode(h)
	if err != nil {
		return err
	}
	in.Flags, in.first = b.inodes[0].Flags&^Implicit, b.inodes[0].first
	b.inodes[0] = in
	return nil
}

func (b *Builder) whiteout(dir uint32, name string) error {
	if name == "" || name == "." || name == ".." {
		return errWhiteoutName
	}
	b.whiteouts[childKey{dir, name}] = struct{}{}
	return nil
}

func (b *Builder) addInode(dir uint32, name string, h *Header) error {
	in, err := b.inode(h)
	if err != nil {
		return err
	}
	if in.isDir() {
		in.parent, in.first = dir, None
		if old, ok := b.names[childKey{dir, name}]; ok {
			at := b.nodes[old].inode
			if at != None && b.inodes[at].isDir() {
				in.Flags, in.first = b.inodes[at].Flags&^Implicit, b.inodes[at].first
				b.inodes[at] = in
				return nil
			}
			in.Flags |= Opaque // what stood here had replaced a lower directory wholly
		}
	}
	b.inodes = append(b.inodes, in)
	b.lastAdded = uint32(len(b.inodes) - 1)
	b.put(dir, node{name: name, inode: b.lastAdded})
	return nil
}

func (b *Builder) addLink(dir uint32, name, target string) error {
	to, _, err := b.find(target)
	if err != nil {
		return err
	}
	if to == None || b.nodes[to].inode == None {
		b.put(dir, node{name: name, inode: None, link: target})
		b.pending = append(b.pending, uint32(len(b.nodes)-1))
		return nil
	}
	at := b.nodes[to].inode
	if b.inodes[at].isDir() {
		return errLinkDir
	}
	if old, ok := b.names[childKey{dir, name}]; ok && b.nodes[old].inode == at {
		return nil // tar writes so when it is given a file twice
	}
	b.put(dir, node{name: name, inode: at})
	return nil
}

// put makes n the directory's entry of its name.
func (b *Builder) put(dir uint32, n node) {
	key := childKey{dir, n.name}
	if old, ok := b.names[key]; ok {
		b.nodes[old].dead = true
		b.lastDir, b.lastRow = "", 0 // it may have been on the way there
	}
	n.next = b.inodes[dir].first
	b.nodes = append(b.nodes, n)
	b.names[key] = uint32(len(b.nodes) - 1)
	b.inodes[dir].first = uint32(len(b.nodes) - 1)
}

// count charges entries and string bytes against the layer's limits.
func (b *Builder) count(entries int, bytes int64) error {
	b.entries += entries
	b.strings += bytes
	switch {
	case b.entries > maxEntries:
		return limit("entries of the layer", int64(b.entries), maxEntries)
	case b.strings > maxStrings:
		return limit("bytes of names", b.strings, maxStrings)
	}
	return nil
}

func (in *Inode) isDir() bool { return in.Mode&typeMask == typeDir }
