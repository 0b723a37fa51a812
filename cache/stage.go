package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// holeSize is the unit in which Stage leaves out zeros, in bytes: the block of
// the usual file systems.
const holeSize = 4096

// Stage takes the address space of a layer while it is streamed, and keeps it
// if the pass over the layer leaves notes and is interrupted. It is for one
// goroutine, but for ReadAt. Until Close, no other process streams the layer.
type Stage struct {
	cache *Cache
	key   digest.Digest
	dir   string
	lock  *os.File
	notes notes

	n         atomic.Int64 // bytes written; by the pass before, until begun
	begun     bool         // this pass has written, or said where it goes on
	full      bool         // there was no space for something
	committed bool

	mu sync.RWMutex // guards which file f is, and its length where that shrinks
	f  *os.File     // nil when closed
}

// Stage returns when no other process streams the layer, or with ctx's error.
// Another may have finished meanwhile: look again whether the layer is there.
func (c *Cache) Stage(ctx context.Context, key digest.Digest) (*Stage, error) {
	dir, err := c.layerDir(key)
	if err != nil {
		return nil, stageError(key, err)
	}
	lock, err := acquire(ctx, filepath.Join(dir, "stage.lock"))
	if err != nil {
		return nil, stageError(key, err)
	}
	g := &Stage{cache: c, key: key, dir: dir, lock: lock, notes: notes{path: filepath.Join(dir, "stage.notes")}}
	if err := g.open(); err != nil {
		return nil, stageError(key, errors.Join(err, g.closeFiles(), lock.Close()))
	}
	return g, nil
}

// open opens what an interrupted pass left, or an empty stage.
func (g *Stage) open() error {
	f, err := os.OpenFile(filepath.Join(g.dir, "stage"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fullIfSo(err)
	}
	g.f = f
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	g.n.Store(fi.Size())
	return g.notes.open()
}

// Write appends p; what an interrupted pass left is forgotten first, unless
// Rewind was called. The error is ErrFull if there is no space for it.
func (g *Stage) Write(p []byte) (int, error) {
	if err := g.begin(); err != nil {
		return 0, stageError(g.key, err)
	}
	done := 0
	for done < len(p) {
		at := g.n.Load()
		zero, n := run(p[done:], at)
		if !zero {
			if _, err := g.f.WriteAt(p[done:done+n], at); err != nil {
				return done, stageError(g.key, g.orFull(err))
			}
		}
		done += n
		g.n.Add(int64(n))
	}
	return done, nil
}

// begin begins a pass at address 0, if none has begun.
func (g *Stage) begin() error {
	if g.f == nil || g.committed {
		return os.ErrClosed
	}
	if g.begun {
		return nil
	}
	return g.rewind(0, nil)
}

// orFull makes err an ErrFull if it says so. Who fills a disk shall not leave it
// full: Close then keeps nothing.
func (g *Stage) orFull(err error) error {
	err = fullIfSo(err)
	g.full = g.full || errors.Is(err, ErrFull)
	return err
}

// run returns the length of p's longest beginning that is all data or all zero
// blocks, where p[0] is at addr.
func run(p []byte, addr int64) (zero bool, n int) {
	for n < len(p) {
		block := p[n:min(len(p), n+holeSize-int((addr+int64(n))%holeSize))]
		hole := len(block) == holeSize && isZero(block)
		if n > 0 && hole != zero {
			break
		}
		zero = hole
		n += len(block)
	}
	return zero, n
}

func isZero(b []byte) bool { return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

// ReadAt is io.ReaderAt's. It reads what was written, or before the first Write
// or Rewind what an interrupted pass left; after Commit, until Close, what was
// committed. It may be called while the other methods are.
func (g *Stage) ReadAt(p []byte, off int64) (int, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.f == nil {
		return 0, stageError(g.key, os.ErrClosed)
	}
	want := int(min(int64(len(p)), max(0, g.n.Load()-off)))
	n, err := g.f.ReadAt(p[:want], off)
	if errors.Is(err, io.EOF) {
		// Zeros at the end that were left out.
		clear(p[n:want])
		n, err = want, nil
	}
	if err != nil {
		return n, stageError(g.key, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Commit makes the size bytes written so far the content of the layer's store,
// all of its spans present. Stores of the layer that are open keep the old one.
func (g *Stage) Commit(size int64, spans int) error {
	if err := g.commit(size, spans); err != nil {
		return stageError(g.key, err)
	}
	return nil
}

func (g *Stage) commit(size int64, spans int) (err error) {
	if err := g.begin(); err != nil {
		return err
	}
	if n := g.n.Load(); size != n || spans < 0 || spans > maxSpans {
		return fmt.Errorf("%w: %d bytes in %d spans committed, %d bytes written", errdefs.ErrInvalidArgument, size, spans, n)
	}
	if err := setLength(g.f, size); err != nil {
		return g.orFull(err)
	}
	words := newHave(header{spans: uint64(spans)})
	n := bitmapWords(spans)
	setAll(words[headerWords:headerWords+n], spans)
	setAll(words[headerWords+n:], spans)
	// As in Store, this lock is held for a few system calls only.
	lock, err := acquire(context.Background(), filepath.Join(g.dir, "lock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.cache.publish(g.dir, g.f, size, words); err != nil {
		return g.orFull(err)
	}
	g.committed = true
	return errors.Join(g.reopen(), g.notes.remove())
}

// reopen opens what was committed, for ReadAt. An evictor shall wait until
// Close: a hole would be taken for the layer. The caller holds the lock on dir.
func (g *Stage) reopen() error {
	f, err := os.Open(filepath.Join(g.dir, "data"))
	if err != nil {
		return err
	}
	if err := lockShared(f); err != nil {
		return errors.Join(err, f.Close())
	}
	old := g.f
	g.f = f
	return closeFile(old)
}

// Close discards what was not committed, unless there are notes on it, and lets
// others stream the layer.
func (g *Stage) Close() error {
	if g.lock == nil {
		return nil
	}
	keep := g.committed || g.notes.n > 0 && g.n.Load() > 0 && !g.full
	err := g.closeFiles()
	if !keep {
		err = errors.Join(err, removeFile(filepath.Join(g.dir, "stage")), g.notes.remove())
	}
	err = errors.Join(err, g.lock.Close())
	g.lock = nil
	if err != nil {
		return stageError(g.key, err)
	}
	return nil
}

func (g *Stage) closeFiles() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.notes.close()
	if g.f != nil {
		err = errors.Join(err, closeFile(g.f))
		g.f = nil
	}
	return err
}

// setLength makes f size bytes long. It does not touch a file that is: ext4
// writes out, when it is closed, one that was cut to nothing.
func setLength(f *os.File, size int64) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() == size {
		return err
	}
	return f.Truncate(size)
}

// removeFile removes a file that may not be there.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func stageError(key digest.Digest, err error) error {
	return fmt.Errorf("streamed layer %s: %w", key, err)
}
