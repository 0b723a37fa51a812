package tree

import (
	"io"
	"io/fs"
)

// openFile is an open file that is no directory.
type openFile struct {
	info
	path string
	fs   *FS
	off  int64
	shut bool
}

var (
	_ io.ReaderAt = (*openFile)(nil)
	_ io.Seeker   = (*openFile)(nil)
)

func (f *openFile) Stat() (fs.FileInfo, error) {
	if f.shut {
		return nil, f.error("stat", fs.ErrClosed)
	}
	return f.info, nil
}

func (f *openFile) Read(p []byte) (int, error) {
	if len(p) == 0 && !f.shut {
		return 0, nil
	}
	n, err := f.read(p, f.off)
	f.off += int64(n)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.read(p, off)
	if n < len(p) && err == nil {
		err = io.EOF
	}
	return n, err
}

func (f *openFile) read(p []byte, off int64) (int, error) {
	if f.shut {
		return 0, f.error("read", fs.ErrClosed)
	}
	if f.inode().Mode&typeMask != typeFile || off < 0 {
		return 0, f.error("read", errInvalid)
	}
	n, err := f.fs.tree.ReadFile(f.fs.ctx, f.fs.data, f.row, p, off)
	if err != nil {
		err = f.error("read", err)
	}
	return n, err
}

func (f *openFile) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		off += f.Size()
	default:
		off = -1
	}
	switch {
	case f.shut:
		return 0, f.error("seek", fs.ErrClosed)
	case off < 0:
		return 0, f.error("seek", errInvalid)
	}
	f.off = off
	return off, nil
}

func (f *openFile) Close() error {
	if f.shut {
		return f.error("close", fs.ErrClosed)
	}
	f.shut = true
	return nil
}

func (f *openFile) error(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.path, Err: err}
}

// openDir is an open directory.
type openDir struct {
	info
	path string
	next int // child that ReadDir returns next
	shut bool
}

var _ fs.ReadDirFile = (*openDir)(nil)

func (d *openDir) Stat() (fs.FileInfo, error) {
	if d.shut {
		return nil, d.error("stat", fs.ErrClosed)
	}
	return d.info, nil
}

func (d *openDir) Read([]byte) (int, error) {
	return 0, d.error("read", errIsDir)
}

// ReadDir returns the next n entries, or all that are left if n <= 0.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.shut {
		return nil, d.error("readdir", fs.ErrClosed)
	}
	left := d.tree.Children(d.row)[d.next:]
	if n > 0 && len(left) == 0 {
		return nil, io.EOF
	}
	if n > 0 {
		left = left[:min(n, len(left))]
	}
	d.next += len(left)
	return d.tree.dirEntries(left), nil
}

func (d *openDir) Close() error {
	if d.shut {
		return d.error("close", fs.ErrClosed)
	}
	d.shut = true
	return nil
}

func (d *openDir) error(op string, err error) error {
	return &fs.PathError{Op: op, Path: d.path, Err: err}
}
