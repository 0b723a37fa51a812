package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// holeSize is the unit in which Stage leaves out zeros, in bytes: the block of
// the usual file systems.
const holeSize = 4096

// Stage takes the address space of a layer while it is streamed. It is for one
// goroutine. Until Close, no other process streams the layer.
type Stage struct {
	cache *Cache
	key   digest.Digest
	dir   string
	lock  *os.File
	f     *os.File // nil when committed or closed
	n     int64    // bytes written
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
	f, err := os.OpenFile(filepath.Join(dir, "stage"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, stageError(key, errors.Join(fullIfSo(err), lock.Close()))
	}
	return &Stage{cache: c, key: key, dir: dir, lock: lock, f: f}, nil
}

// Write appends p. The error is ErrFull if there is no space for it.
func (g *Stage) Write(p []byte) (int, error) {
	if g.f == nil {
		return 0, stageError(g.key, os.ErrClosed)
	}
	done := 0
	for done < len(p) {
		zero, n := run(p[done:], g.n)
		if !zero {
			if _, err := g.f.WriteAt(p[done:done+n], g.n); err != nil {
				return done, stageError(g.key, fullIfSo(err))
			}
		}
		done += n
		g.n += int64(n)
	}
	return done, nil
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

// Commit makes the size bytes written so far the content of the layer's store,
// all of its spans present. Stores of the layer that are open keep the old one.
func (g *Stage) Commit(size int64, spans int) (err error) {
	defer func() {
		if err != nil {
			err = stageError(g.key, err)
		}
	}()
	if g.f == nil {
		return os.ErrClosed
	}
	if size != g.n || spans < 0 || spans > maxSpans {
		return fmt.Errorf("%w: %d bytes in %d spans committed, %d bytes written", errdefs.ErrInvalidArgument, size, spans, g.n)
	}
	if err := g.f.Truncate(size); err != nil {
		return fullIfSo(err)
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
	if err := g.cache.publish(g.dir, g.f, size, words); err != nil {
		return err
	}
	f := g.f
	g.f = nil
	return closeFile(f)
}

// Close discards what was not committed, and lets others stream the layer.
func (g *Stage) Close() error {
	if g.lock == nil {
		return nil
	}
	var err error
	if g.f != nil {
		err = errors.Join(closeFile(g.f), os.Remove(g.f.Name()))
	}
	err = errors.Join(err, g.lock.Close())
	g.f, g.lock = nil, nil
	if err != nil {
		return stageError(g.key, err)
	}
	return nil
}

func stageError(key digest.Digest, err error) error {
	return fmt.Errorf("streamed layer %s: %w", key, err)
}
