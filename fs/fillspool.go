package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// staleSpool is the age after which nobody is expected to go on with a spool.
const staleSpool = 7 * 24 * time.Hour

// spool is the beginning of a blob, in a file that outlives whoever writes it:
// the next fill goes on at its end. What it holds is only proved by the digest
// of the whole. It is a layer.Source of what it has. One goroutine writes.
type spool struct {
	f    *os.File
	size int64 // of the blob
	n    int64 // bytes that are there
	kept int64 // of them, from before it was opened
}

// openSpool opens the spool of a blob in dir, with what an earlier fill left.
// The caller sees to it that nobody else has it open.
func openSpool(dir string, d digest.Digest, size int64) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, d.Algorithm().String()+"-"+d.Encoded()), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &spool{f: f, size: size}
	fi, err := f.Stat()
	if err == nil && fi.Size() > size {
		err = s.rewind()
	} else if err == nil {
		s.n, s.kept = fi.Size(), fi.Size()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// rewind forgets all of it.
func (s *spool) rewind() error {
	s.n, s.kept = 0, 0
	return s.f.Truncate(0)
}

// Write appends. What a failed write has written is not counted.
func (s *spool) Write(p []byte) (int, error) {
	if int64(len(p)) > s.size-s.n {
		return 0, fmt.Errorf("%d bytes more than the blob has: %w", int64(len(p))-(s.size-s.n), io.ErrShortWrite)
	}
	if _, err := s.f.WriteAt(p, s.n); err != nil {
		return 0, err
	}
	s.n += int64(len(p))
	return len(p), nil
}

// Size is that of the blob.
func (s *spool) Size() int64 { return s.size }

// ReadRange is layer.Source's, for what is there.
func (s *spool) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if off >= 0 && n >= 0 && n <= s.size-off && off+n > s.n {
		return nil, fmt.Errorf("bytes %d to %d, of which %d are there: %w", off, off+n, s.n, errdefs.ErrFailedPrecondition)
	}
	return fileSource{s.f, s.size}.ReadRange(ctx, off, n)
}

// close leaves the spool to a later fill.
func (s *spool) close() error { return s.f.Close() }

// discard removes it.
func (s *spool) discard() error { return discard(s.f) }

// sweepSpools removes what nobody went on with.
func sweepSpools(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		fi, err := e.Info()
		if err == nil && fi.ModTime().Before(before) {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if !errors.Is(err, iofs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
