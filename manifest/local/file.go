package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// held is a regular file that stays open. Its reads fail once it is not any
// more what it was when it was opened.
type held struct {
	file *os.File
	fd   uintptr
	name string // for messages
	was  stamp
}

// hold takes f over, and closes it if it cannot be used.
func hold(f *os.File, name string) (*held, error) {
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrMalformed, quote(name))
	}
	h := &held{file: f, fd: f.Fd(), name: name}
	if err == nil {
		h.was, err = stampOf(f, h.fd)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return h, nil
}

// ReadAt implements io.ReaderAt. That the file is as it was is looked up after
// the read, so that it holds for the bytes that were read.
func (h *held) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.file.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, err
	}
	now, failed := stampOf(h.file, h.fd)
	if failed != nil {
		return 0, failed
	}
	if now != h.was {
		return 0, h.changed(now)
	}
	return n, err
}

func (h *held) changed(now stamp) error {
	return fmt.Errorf("%s %w (%d bytes then, %d now); open the image again: unmount and mount it, or repeat the command",
		quote(h.name), ErrChanged, h.was.size, now.size)
}

func (h *held) Close() error { return h.file.Close() }

// file is a file in a folder: the bytes [0, size) of what it embeds.
type file struct {
	io.ReaderAt
	name  string // where it really lies in the folder
	size  int64
	owner io.Closer // closed with the file; nil if there is nothing to close
}

func (f *file) Close() error {
	if f.owner == nil {
		return nil
	}
	return f.owner.Close()
}

// read returns the whole file if it has at most limit bytes.
func (f *file) read(limit int64) ([]byte, error) {
	if f.size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", ErrMalformed, quote(f.name), f.size, limit)
	}
	p := make([]byte, f.size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, f.size), p); err != nil {
		return nil, fmt.Errorf("%s: %w", quote(f.name), err)
	}
	return p, nil
}

// reader reads the bytes [off, off+n) until ctx is done.
func (f *file) reader(ctx context.Context, off, n int64) io.Reader {
	return &reader{io.NewSectionReader(f, off, n), ctx.Err}
}

// reader reads as long as alive says that somebody still wants it.
type reader struct {
	io.Reader
	alive func() error
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.alive(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// sum is the digest of all of f.
func (f *file) sum(ctx context.Context) (digest.Digest, error) {
	d, err := digest.FromReader(f.reader(ctx, 0, f.size))
	if err != nil {
		return "", fmt.Errorf("%s: %w", quote(f.name), err)
	}
	return d, nil
}
