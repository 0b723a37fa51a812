package fs

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer"
)

// depot is a Cache whose stores keep what they are given, and spans of which
// can be claimed as from another process.
type depot struct {
	*folder
	full bool // no store takes anything

	mu   sync.Mutex // guards kept
	kept map[digest.Digest]*crate
}

func newDepot(t *testing.T) *depot {
	t.Helper()
	return &depot{folder: newFolder(t), kept: map[digest.Digest]*crate{}}
}

func (d *depot) Store(key digest.Digest, size int64, spans int) (layer.Store, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept[key] == nil {
		d.kept[key] = &crate{data: make([]byte, size), there: make([]bool, spans), claimed: make([]bool, spans)}
	}
	if d.full {
		return fullCrate{d.kept[key]}, nil
	}
	return d.kept[key], nil
}

// crate is what a depot has of a layer.
type crate struct {
	mu      sync.Mutex // guards what follows
	data    []byte
	there   []bool // by span
	claimed []bool
}

func (c *crate) Has(span int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.there[span]
}

func (c *crate) Read(p []byte, addr int64, first, n int) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, there := range c.there[first : first+n] {
		if !there {
			return false, nil
		}
	}
	copy(p, c.data[addr:])
	return true, nil
}

func (c *crate) Put(span int, addr int64, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	copy(c.data[addr:], data)
	c.there[span] = true
	return nil
}

func (c *crate) TryClaim(first, n int) (release func(), ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, claimed := range c.claimed[first : first+n] {
		if claimed {
			return nil, false, nil
		}
	}
	c.setLocked(first, n, true)
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.setLocked(first, n, false)
	}), true, nil
}

func (c *crate) setLocked(first, n int, claimed bool) {
	for i := first; i < first+n; i++ {
		c.claimed[i] = claimed
	}
}

func (c *crate) Claim(ctx context.Context, first, n int) (func(), error) {
	for {
		if release, ok, _ := c.TryClaim(first, n); ok {
			return release, nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fullCrate takes nothing.
type fullCrate struct{ *crate }

func (fullCrate) Put(int, int64, []byte) error { return errdefs.ErrResourceExhausted }
