package fs

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs/tree"
)

// maxName is the longest name of a directory entry, bytes (NAME_MAX).
const maxName = 255

// forever is how long the kernel may keep entries, attributes and the absence
// of names, seconds. Larger values are cut to what fits its clock.
const forever = 1 << 40

// blockSize is what statfs(2) and stat(2) count in, bytes.
const blockSize = 4096

// table answers FUSE requests from a tree: node id = row + 1. The embedded
// default answers ENOSYS to what changes things.
type table struct {
	fuse.RawFileSystem
	tree *tree.Tree
	data tree.Data
	// failed is told of every read that ends in EIO.
	failed func(row uint32, err error)
	// early numbers what was shown before there was a tree; nil if nothing was.
	early *numbering
	trace *tracer // nil: reads are not traced
	name  string  // of the only row, for traces, where the tree does not know it
}

func newTable(t *tree.Tree, data tree.Data, failed func(uint32, error)) *table {
	return &table{RawFileSystem: fuse.NewDefaultRawFileSystem(), tree: t, data: data, failed: failed}
}

func (t *table) String() string { return fsType }

// row returns the row of a node id, which came from us by way of the kernel.
func (t *table) row(id uint64) (uint32, bool) {
	if id >= firstEarly && t.early != nil {
		return t.early.row(id)
	}
	return uint32(id - 1), id-1 < uint64(len(t.tree.Inodes))
}

// id returns the node id of a row.
func (t *table) id(row uint32) uint64 {
	if t.early != nil {
		if id, ok := t.early.ids[row]; ok {
			return id
		}
	}
	return uint64(row) + 1
}

func (t *table) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, ok := t.row(h.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG) // the kernel lets up to 1024 bytes through
	}
	out.EntryValid = forever
	row, ok := t.tree.Lookup(dir, name)
	if !ok {
		return fuse.OK // node id 0: the kernel remembers the absence
	}
	t.entry(row, out)
	return fuse.OK
}

func (t *table) entry(row uint32, out *fuse.EntryOut) {
	out.NodeId = t.id(row)
	out.EntryValid, out.AttrValid = forever, forever
	setAttr(&out.Attr, out.NodeId, &t.tree.Inodes[row])
}

func setAttr(a *fuse.Attr, id uint64, n *tree.Inode) {
	sec, nsec := uint64(n.MtimeSec), n.MtimeNsec
	*a = fuse.Attr{
		Ino: id, Size: uint64(n.Size), Blocks: (uint64(n.Size) + 511) / 512, Blksize: blockSize,
		Mode: n.Mode, Nlink: n.Nlink, Owner: fuse.Owner{Uid: n.UID, Gid: n.GID}, Rdev: rdev(n.RdevMajor, n.RdevMinor),
		Atime: sec, Mtime: sec, Ctime: sec, Atimensec: nsec, Mtimensec: nsec, Ctimensec: nsec,
	}
}

// rdev packs a device number as the protocol wants it: the kernel's
// new_encode_dev, 12 bits of major and 20 of minor.
func rdev(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

func (t *table) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	row, ok := t.row(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	out.AttrValid = forever
	setAttr(&out.Attr, t.id(row), &t.tree.Inodes[row])
	return fuse.OK
}

// Open and OpenDir tell the kernel to open by itself from now on: it then keeps
// pages and listings of a file cached from one open to the next, and sends no
// RELEASE (Linux 3.16, directories 5.1).
func (t *table) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// OpenDir is like Open.
func (t *table) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// Flush is never needed, and after this answer never asked for again.
func (t *table) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

func (t *table) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	row, ok := t.row(h.NodeId)
	if !ok {
		return nil, fuse.Status(syscall.ESTALE)
	}
	n := &t.tree.Inodes[row]
	if n.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	return []byte(t.tree.Pool.String(n.Link)), fuse.OK
}

func (t *table) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	row, ok := t.row(in.NodeId)
	if !ok {
		return nil, fuse.Status(syscall.ESTALE)
	}
	var n int
	var err error
	if t.trace == nil {
		n, err = t.tree.ReadFile(requestContext{cancel}, t.data, row, buf, int64(in.Offset))
	} else {
		n, err = t.trace.read(requestContext{cancel}, t, row, buf, int64(in.Offset))
	}
	if err == nil {
		return inPlace(n), fuse.OK
	}
	select {
	case <-cancel:
		return nil, fuse.EINTR
	default:
	}
	t.failed(row, err)
	return nil, fuse.EIO
}

// inPlace is the result of a read whose bytes already lie in the reply.
type inPlace int

func (n inPlace) Size() int                              { return int(n) }
func (n inPlace) Done()                                  {}
func (n inPlace) Readv([][]byte) (int, fuse.Status)      { return int(n), fuse.OK }
func (n inPlace) Bytes(buf []byte) ([]byte, fuse.Status) { return buf[:n], fuse.OK }

// requestContext ends when the kernel says that the asker was interrupted.
// Unlike context.WithCancel it costs no goroutine and no lock a request.
type requestContext struct{ cancel <-chan struct{} }

func (requestContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (requestContext) Value(any) any               { return nil }
func (c requestContext) Done() <-chan struct{}     { return c.cancel }

func (c requestContext) Err() error {
	select {
	case <-c.cancel:
		return context.Canceled
	default:
		return nil
	}
}

// Directory offsets: 0 is ".", 1 is "..", 2+i the i-th child.

func (t *table) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir, ok := t.row(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	for off := in.Offset; off < 2; off++ {
		if !out.AddDirEntry(t.dots(dir, off)) {
			return fuse.OK
		}
	}
	for _, e := range t.rest(dir, in.Offset) {
		if !out.AddDirEntry(t.dirEntry(e)) {
			return fuse.OK
		}
	}
	return fuse.OK
}

func (t *table) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir, ok := t.row(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	for off := in.Offset; off < 2; off++ {
		if out.AddDirLookupEntry(t.dots(dir, off)) == nil { // node id 0: not to be looked up
			return fuse.OK
		}
	}
	for _, e := range t.rest(dir, in.Offset) {
		o := out.AddDirLookupEntry(t.dirEntry(e))
		if o == nil {
			return fuse.OK
		}
		t.entry(e.Inode, o)
	}
	return fuse.OK
}

// rest returns the children of dir from directory offset off on.
func (t *table) rest(dir uint32, off uint64) []tree.Entry {
	c := t.tree.Children(dir)
	return c[min(max(off, 2)-2, uint64(len(c))):]
}

func (t *table) dots(dir uint32, off uint64) fuse.DirEntry {
	if off == 0 {
		return fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: t.id(dir)}
	}
	return fuse.DirEntry{Name: "..", Mode: unix.S_IFDIR, Ino: t.id(t.tree.Inodes[dir].Parent)}
}

func (t *table) dirEntry(e tree.Entry) fuse.DirEntry {
	return fuse.DirEntry{Name: t.tree.Name(e), Mode: e.Type, Ino: t.id(e.Inode)}
}

func (t *table) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if !t.tree.HasXattrs() {
		return 0, fuse.ENOSYS
	}
	row, ok := t.row(h.NodeId)
	if !ok {
		return 0, fuse.Status(syscall.ESTALE)
	}
	v, ok := t.tree.Xattr(row, attr)
	if !ok {
		return 0, fuse.ENOATTR
	}
	if len(v) > len(dest) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (t *table) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if !t.tree.HasXattrs() {
		return 0, fuse.ENOSYS
	}
	row, ok := t.row(h.NodeId)
	if !ok {
		return 0, fuse.Status(syscall.ESTALE)
	}
	need := 0
	for _, x := range t.tree.XattrsOf(row) {
		name := t.tree.Pool.String(x.Name)
		if need+len(name)+1 <= len(dest) {
			dest[need+copy(dest[need:], name)] = 0
		}
		need += len(name) + 1
	}
	if need > len(dest) {
		return uint32(need), fuse.ERANGE
	}
	return uint32(need), fuse.OK
}

func (t *table) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{
		Bsize: blockSize, Frsize: blockSize, NameLen: maxName,
		Blocks: uint64(t.tree.Size()+blockSize-1) / blockSize,
		Files:  uint64(len(t.tree.Inodes)),
	}
	return fuse.OK
}
