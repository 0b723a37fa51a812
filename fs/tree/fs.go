package tree

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// maxReadFile is how large a file FS.ReadFile returns, bytes. Larger ones must
// be opened: a sparse file may claim more than any memory holds.
const maxReadFile = 1 << 30

// FS shows an image as an io/fs.FS. Open, Stat, ReadFile and ReadDir follow
// symlinks within the image, absolute ones from its root; Lstat and ReadLink
// do not follow the last. Names are as io/fs wants them, except that they may
// hold bytes which are not UTF-8. FileInfo.Sys returns the file's *Inode,
// which must not be written to.
type FS struct {
	// ctx bounds every read, since io/fs has no other place for it.
	ctx  context.Context //nolint:containedctx // see above
	tree *Tree
	data Data
}

// The optional interfaces of io/fs that FS has.
var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadFileFS = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
)

// FS returns the image as a file system whose files are read through data
// while ctx lasts.
func (t *Tree) FS(ctx context.Context, data Data) *FS {
	return &FS{ctx: ctx, tree: t, data: data}
}

// Open opens the named file. What it returns is an fs.ReadDirFile for a
// directory, and also an io.ReaderAt and io.Seeker for a regular file; of
// other files only Stat succeeds.
func (f *FS) Open(name string) (fs.File, error) {
	row, err := f.row("open", name, followAll)
	if err != nil {
		return nil, err
	}
	i := info{tree: f.tree, row: row, name: path.Base(name)}
	if isDir(i.inode().Mode) {
		return &openDir{info: i, path: name}, nil
	}
	return &openFile{info: i, path: name, fs: f}, nil
}

// Stat describes the named file.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	return f.stat("stat", name, followAll)
}

// Lstat is Stat that describes a symlink itself.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	return f.stat("lstat", name, followMiddle)
}

func (f *FS) stat(op, name string, how follow) (fs.FileInfo, error) {
	row, err := f.row(op, name, how)
	if err != nil {
		return nil, err
	}
	return info{tree: f.tree, row: row, name: path.Base(name)}, nil
}

// ReadLink returns the target of the named symlink as it is written.
func (f *FS) ReadLink(name string) (string, error) {
	row, err := f.row("readlink", name, followMiddle)
	if err != nil {
		return "", err
	}
	if f.tree.Inodes[row].Mode&typeMask != typeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: errInvalid}
	}
	return strings.Clone(f.tree.Link(row)), nil
}

// ReadDir returns the named directory's entries in byte order of name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	row, err := f.row("readdir", name, followAll)
	if err != nil {
		return nil, err
	}
	if !isDir(f.tree.Inodes[row].Mode) {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: ErrNotDir}
	}
	return f.tree.dirEntries(f.tree.Children(row)), nil
}

// ReadFile returns the named regular file's bytes, at most 1 GiB.
func (f *FS) ReadFile(name string) ([]byte, error) {
	row, err := f.row("readfile", name, followAll)
	if err != nil {
		return nil, err
	}
	n := &f.tree.Inodes[row]
	switch {
	case isDir(n.Mode):
		err = errIsDir
	case n.Mode&typeMask != typeFile:
		err = errInvalid
	case n.Size > maxReadFile:
		err = fmt.Errorf("%d bytes are more than the %d that are read at once: %w", n.Size, maxReadFile, errInvalid)
	default:
		p := make([]byte, n.Size)
		if _, err = f.tree.ReadFile(f.ctx, f.data, row, p, 0); err == nil {
			return p, nil
		}
	}
	return nil, &fs.PathError{Op: "readfile", Path: name, Err: err}
}

// row resolves name, whose errors are *fs.PathError.
func (f *FS) row(op, name string, how follow) (uint32, error) {
	if !validName(name) {
		return 0, &fs.PathError{Op: op, Path: name, Err: errInvalid}
	}
	row, err := f.tree.steps(name, how)
	if err != nil {
		return 0, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return row, nil
}

// validName is fs.ValidPath for names of any bytes.
func validName(name string) bool {
	return name == "." || name != "" && path.Clean(name) == name && name[0] != '/' && name != ".." && !strings.HasPrefix(name, "../")
}

// info is the fs.FileInfo and fs.DirEntry of a row.
type info struct {
	tree *Tree
	row  uint32
	name string
}

func (i info) inode() *Inode { return &i.tree.Inodes[i.row] }

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.inode().Size }
func (i info) Mode() fs.FileMode          { return fileMode(i.inode().Mode) }
func (i info) Type() fs.FileMode          { return i.Mode().Type() }
func (i info) IsDir() bool                { return isDir(i.inode().Mode) }
func (i info) Sys() any                   { return i.inode() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
func (i info) String() string             { return fs.FormatFileInfo(i) }

func (i info) ModTime() time.Time {
	return time.Unix(i.inode().MtimeSec, int64(i.inode().MtimeNsec))
}

func (t *Tree) dirEntries(es []Entry) []fs.DirEntry {
	out := make([]fs.DirEntry, len(es))
	for i, e := range es {
		out[i] = info{tree: t, row: e.Inode, name: t.Name(e)}
	}
	return out
}

// fileMode translates a mode of Linux.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, bit := range [...]struct {
		linux uint32
		mode  fs.FileMode
	}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}} {
		if mode&bit.linux != 0 {
			m |= bit.mode
		}
	}
	switch mode & typeMask {
	case typeDir:
		m |= fs.ModeDir
	case typeSymlink:
		m |= fs.ModeSymlink
	case typeFIFO:
		m |= fs.ModeNamedPipe
	case typeSocket:
		m |= fs.ModeSocket
	case typeChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case typeBlock:
		m |= fs.ModeDevice
	}
	return m
}
