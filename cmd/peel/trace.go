package main

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// openTrace opens the file of --trace for the server of the mount on dir, or
// returns nil without one. Only a regular file will do: no other kind is sure
// to take what is written without keeping the server's end waiting.
func (t *tuning) openTrace(dir string) (*traceFile, error) {
	if t.trace == "" {
		return nil, nil //nolint:nilnil // no trace is the rule
	}
	at, err := realPath(t.trace)
	if errors.Is(err, iofs.ErrNotExist) {
		at, err = realPath(filepath.Dir(t.trace))
	}
	if err == nil && within(at, dir) {
		return nil, withRemedy(usagef("--trace %s: the mount would hide it", t.trace), "choose a file elsewhere")
	}
	// Without O_NONBLOCK a pipe would keep the mount waiting for its reader.
	f, err := os.OpenFile(t.trace, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--trace: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = usagef("--trace %s: not a regular file", t.trace)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &traceFile{f: f}, nil
}

// traceFile is a file of whole lines, even where the disk was full.
type traceFile struct {
	f    *os.File
	size int64
}

func (t *traceFile) Write(p []byte) (int, error) {
	n, err := t.f.Write(p)
	if err != nil {
		return 0, errors.Join(err, t.f.Truncate(t.size))
	}
	t.size += int64(n)
	return n, nil
}

// Close is fine without a file.
func (t *traceFile) Close() error {
	if t == nil {
		return nil
	}
	return t.f.Close()
}

// writer is nil without a file.
func (t *traceFile) writer() io.Writer {
	if t == nil {
		return nil
	}
	return t
}
