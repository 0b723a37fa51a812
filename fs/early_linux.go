package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs/tree"
)

// MountEarly shows e on dir, like Mount. The caller closes e once the server
// has ended.
func MountEarly(ctx context.Context, e *Early, dir string, o MountOptions) (*Server, error) {
	s := newServer(dir, o)
	view := newEarlyTable(e, s.readFailed)
	view.trace = s.trace
	if err := s.mount(ctx, view, o); err != nil {
		return nil, err
	}
	n := &notifier{fd: s.conn.fd}
	s.unserved = n.close
	e.attend(s.readFailed, n.invalidate)
	if err := s.serve(); err != nil { //nolint:contextcheck // what it may have to undo takes none
		if failed := e.failure(); failed != nil {
			err = failed // which is why the mount did not answer
		}
		return nil, err
	}
	return s, nil
}

// failure returns why the image will never be open, or nil.
func (e *Early) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// attend names who is told of failures from now on.
func (e *Early) attend(failed func(string, error), spoilt func([]uint64)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failed, e.spoilt = failed, spoilt
}

// earlyTable answers FUSE requests from an Early, and once the image is open
// has its table answer them. Until then the kernel is to ask every time.
type earlyTable struct {
	fuse.RawFileSystem
	early  *Early
	failed func(path string, err error)
	trace  *tracer // nil: reads are not traced
	final  atomic.Pointer[table]
	once   sync.Once
}

func newEarlyTable(e *Early, failed func(string, error)) *earlyTable {
	return &earlyTable{RawFileSystem: fuse.NewDefaultRawFileSystem(), early: e, failed: failed}
}

func (t *earlyTable) String() string { return fsType }

// opened returns the table of the image, or nil while it is being opened.
func (t *earlyTable) opened() *table {
	if f := t.final.Load(); f != nil {
		return f
	}
	e := t.early
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.image; m != nil && e.err == nil {
		t.once.Do(func() {
			f := newTable(m.Tree, m, func(row uint32, err error) { t.failed(m.Tree.Path(row), err) })
			f.early, f.trace = e.numbers, t.trace
			t.final.Store(f)
		})
	}
	return t.final.Load()
}

// whole waits for the table of the image.
func (t *earlyTable) whole(cancel <-chan struct{}) (*table, fuse.Status) {
	err := t.early.await(requestContext{cancel}, "", func() bool { return t.early.image != nil })
	if err != nil {
		return nil, answer(err)
	}
	return t.opened(), fuse.OK
}

// answer is what a request gets that waited in vain.
func answer(err error) fuse.Status {
	switch {
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	case errors.Is(err, errNoNode):
		return fuse.Status(syscall.ESTALE)
	}
	return fuse.EIO
}

func (t *earlyTable) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if f := t.opened(); f != nil {
		return f.Lookup(cancel, h, name, out)
	}
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	n, err := t.early.find(requestContext{cancel}, h.NodeId, name)
	switch {
	case err != nil:
		return answer(err)
	case n == nil:
		return t.opened().Lookup(cancel, h, name, out)
	}
	out.NodeId = n.id
	return t.attr(cancel, n.id, &out.Attr)
}

// attr fills a with what is known of a node by now.
func (t *earlyTable) attr(cancel <-chan struct{}, id uint64, a *fuse.Attr) fuse.Status {
	n, one, err := t.early.at(id)
	switch {
	case err != nil:
		return answer(err)
	case n == nil:
		var out fuse.AttrOut
		status := t.opened().GetAttr(cancel, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: id}}, &out)
		*a = out.Attr
		return status
	}
	setAttr(a, id, &one.Inodes[0])
	return fuse.OK
}

func (t *earlyTable) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f := t.opened(); f != nil {
		return f.GetAttr(cancel, in, out)
	}
	return t.attr(cancel, in.NodeId, &out.Attr)
}

// Open lets the kernel keep what it has read: a node never has other bytes.
func (t *earlyTable) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f := t.opened(); f != nil {
		return f.Open(cancel, in, out)
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (t *earlyTable) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f := t.opened(); f != nil {
		return f.OpenDir(cancel, in, out)
	}
	return fuse.OK
}

func (t *earlyTable) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// of returns a table of the one node, as row 0.
func (t *earlyTable) of(id uint64) (*table, fuse.Status) {
	n, one, err := t.early.at(id)
	switch {
	case err != nil:
		return nil, answer(err)
	case n == nil:
		return nil, fuse.OK
	}
	f := newTable(one, t.early, func(_ uint32, err error) { t.failed("/"+n.path, err) })
	f.trace, f.name = t.trace, n.path
	return f, fuse.OK
}

func (t *earlyTable) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	one, status := t.of(h.NodeId)
	switch {
	case status != fuse.OK:
		return nil, status
	case one == nil:
		return t.opened().Readlink(cancel, h)
	}
	return one.Readlink(cancel, &fuse.InHeader{NodeId: rootID})
}

func (t *earlyTable) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if f := t.opened(); f != nil {
		if _, ok := f.row(in.NodeId); !ok {
			return nil, fuse.EIO // what was shown is not what the image has
		}
		return f.Read(cancel, in, buf)
	}
	one, status := t.of(in.NodeId)
	switch {
	case status != fuse.OK:
		return nil, status
	case one == nil:
		return t.Read(cancel, in, buf)
	}
	first := *in
	first.NodeId = rootID
	return one.Read(cancel, &first, buf)
}

func (t *earlyTable) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	f, status := t.whole(cancel)
	if status != fuse.OK {
		return status
	}
	return f.ReadDir(cancel, in, out)
}

func (t *earlyTable) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	f, status := t.whole(cancel)
	if status != fuse.OK {
		return status
	}
	return f.ReadDirPlus(cancel, in, out)
}

// GetXAttr must not say, as a table of a whole image may, that there are no
// extended attributes at all.
func (t *earlyTable) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	one, status := t.of(h.NodeId)
	switch {
	case status != fuse.OK:
		return 0, status
	case one == nil:
		return t.opened().GetXAttr(cancel, h, attr, dest)
	case !one.tree.HasXattrs():
		return 0, fuse.ENOATTR
	}
	return one.GetXAttr(cancel, &fuse.InHeader{NodeId: rootID}, attr, dest)
}

// ListXAttr is like GetXAttr.
func (t *earlyTable) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	one, status := t.of(h.NodeId)
	switch {
	case status != fuse.OK:
		return 0, status
	case one == nil:
		return t.opened().ListXAttr(cancel, h, dest)
	case !one.tree.HasXattrs():
		return 0, fuse.OK
	}
	return one.ListXAttr(cancel, &fuse.InHeader{NodeId: rootID}, dest)
}

// StatFs does not wait: df(1) asks every mount there is.
func (t *earlyTable) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	f := t.opened()
	if f == nil {
		f = newTable(&tree.Tree{}, t.early, nil)
	}
	return f.StatFs(cancel, h, out)
}

// notifier tells the kernel to forget what it has cached of files.
type notifier struct {
	mu sync.Mutex // held while fd is used
	fd int        // -1 once it is closed
}

func (n *notifier) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fd = -1
}

// Of include/uapi/linux/fuse.h.
const (
	notifyInvalInode = 2
	notifyHeader     = 16 // struct fuse_out_header
	notifyInode      = 24 // struct fuse_notify_inval_inode_out
)

// invalidate sends FUSE_NOTIFY_INVAL_INODE for all bytes and the attributes of
// the nodes. Ones that the kernel does not know are no error.
func (n *notifier) invalidate(ids []uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		if n.fd < 0 {
			return
		}
		msg := make([]byte, 0, notifyHeader+notifyInode)
		msg = binary.NativeEndian.AppendUint32(msg, notifyHeader+notifyInode)
		msg = binary.NativeEndian.AppendUint32(msg, notifyInvalInode)
		msg = binary.NativeEndian.AppendUint64(msg, 0) // answers no request
		msg = binary.NativeEndian.AppendUint64(msg, id)
		msg = binary.NativeEndian.AppendUint64(msg, 0) // from the first byte
		msg = binary.NativeEndian.AppendUint64(msg, 0) // to the last
		_, _ = unix.Write(n.fd, msg)
	}
}
