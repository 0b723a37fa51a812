package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Store opens the store of a layer whose address space is size bytes long and
// cut into spans. A store of another size or span count is replaced by an empty
// one; whoever has it open keeps it.
func (c *Cache) Store(key digest.Digest, size int64, spans int) (s *Store, err error) {
	defer func() {
		if err != nil {
			s, err = nil, fmt.Errorf("cached layer %s: %w", key, err)
		}
	}()
	dir, err := c.layerDir(key)
	if err != nil {
		return nil, err
	}
	if size < 0 || spans < 0 || spans > maxSpans {
		return nil, fmt.Errorf("%w: %d bytes in %d spans; at most %d spans can be kept", errdefs.ErrInvalidArgument, size, spans, maxSpans)
	}
	// The lock is held for a few system calls only, so nobody waits for long.
	lock, err := acquire(context.Background(), filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := c.restore(dir, size, spans); err != nil {
		return nil, err
	}
	return openLocked(dir, key, size, spans)
}

// restore sees to it that dir holds a data and a have that fit each other. The
// caller holds the lock on dir. It replaces have rather than change it: another
// process may have the old pair open.
func (c *Cache) restore(dir string, size int64, spans int) error {
	data, err := os.Stat(filepath.Join(dir, "data"))
	if err != nil {
		return c.create(dir, size, spans)
	}
	words, err := readWords(filepath.Join(dir, "have"), haveWords(spans))
	if err != nil {
		return c.create(dir, size, spans)
	}
	old, err := viewHave(words, size, spans)
	if err != nil {
		return c.create(dir, size, spans)
	}
	sameBoot := old.header.boot == c.boot && c.boot != bootID{}
	switch {
	case sameBoot && data.Size() != size:
		// Somebody cut the file: its bits lie, and processes that have it
		// open must not find it grown again.
		return c.create(dir, size, spans)
	case sameBoot && old.header.data == idOf(data):
		return nil
	}
	path := filepath.Join(dir, "data")
	if err := os.Truncate(path, size); err != nil {
		return fullIfSo(err)
	}
	next := newHave(header{spans: uint64(spans), size: uint64(size), boot: c.boot, data: idOf(data)})
	hints := next[headerWords : headerWords+bitmapWords(spans)]
	setAll(hints, spans)
	for i := range hints {
		hints[i] &= old.present[i]
	}
	return replaceFile(filepath.Join(dir, "have"), asBytes(next))
}

// create makes an empty store. The caller holds the lock on dir.
func (c *Cache) create(dir string, size int64, spans int) (err error) {
	f, err := os.OpenFile(filepath.Join(dir, "data"+newSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fullIfSo(err)
	}
	defer func() {
		err = errors.Join(err, closeFile(f))
		if err != nil {
			err = errors.Join(err, os.RemoveAll(f.Name()))
		}
	}()
	if err := f.Truncate(size); err != nil {
		return fullIfSo(err)
	}
	return c.publish(dir, f, size, newHave(header{spans: uint64(spans)}))
}

// publish makes f the data of the store, and words, completed, its have. The
// caller holds the lock on dir. If it is killed on the way, have speaks of
// another file than data, and is a hint.
func (c *Cache) publish(dir string, f *os.File, size int64, words []uint64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	h := viewHeader(words)
	h.size, h.boot, h.data = uint64(size), c.boot, idOf(fi)
	path := filepath.Join(dir, "have")
	if err := writeNew(path, asBytes(words)); err != nil {
		return err
	}
	if err := moveOpen(f, filepath.Join(dir, "data")); err != nil {
		return errors.Join(err, os.Remove(path+newSuffix))
	}
	return os.Rename(path+newSuffix, path)
}

// newSuffix marks a file that is to be renamed when it is complete.
const newSuffix = ".new"

// writeNew writes what shall become the file at path. The caller holds the lock
// on its folder.
func writeNew(path string, data []byte) error {
	path += newSuffix
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return errors.Join(fullIfSo(err), os.RemoveAll(path))
	}
	return nil
}

// openLocked opens the pair that restore left. The caller holds the lock on dir.
func openLocked(dir string, key digest.Digest, size int64, spans int) (s *Store, err error) {
	s = &Store{key: key, size: size, spans: spans, claims: spanClaims{path: filepath.Join(dir, "claims")}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeFiles())
		}
	}()
	if s.data, err = os.OpenFile(filepath.Join(dir, "data"), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if s.bits, err = os.OpenFile(filepath.Join(dir, "have"), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if err = lockShared(s.bits); err != nil {
		return nil, err
	}
	words, err := mapWords(s.bits, haveWords(spans))
	if err != nil {
		return nil, err
	}
	s.have, err = viewHave(words, size, spans)
	return s, err
}

// closeFile closes a file that moveOpen may have closed.
func closeFile(f *os.File) error {
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
