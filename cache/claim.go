package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxClaimWait bounds the wait between two attempts at a claim. Spans take
// tens of milliseconds to fetch.
const maxClaimWait = 20 * time.Millisecond

// spanClaims are the spans that a Store has claimed from the other stores of
// its layer: byte n of the file claims is locked as long as span n is claimed.
// The locks belong to the open file, so this store's own are noted here.
type spanClaims struct {
	path string

	mu     sync.Mutex // guards what follows
	file   *os.File   // nil until something is claimed, and when closed
	closed bool
	own    []claimed
}

// claimed is the range [first, end) of spans.
type claimed struct{ first, end int }

// TryClaim claims the spans [first, first+n) for whoever fetches them, until
// release is called; it reports false if another, of this or another process,
// has claimed one of them. A claim keeps nobody from reading or putting spans.
// Where the system has no such locks, everything can be claimed.
func (s *Store) TryClaim(first, n int) (release func(), ok bool, err error) {
	if err := s.claimable(first, n); err != nil {
		return nil, false, err
	}
	release, err = s.claims.try(first, n)
	if err != nil {
		return nil, false, fmt.Errorf("cached layer %s: claim of spans [%d, +%d): %w", s.key, first, n, err)
	}
	return release, release != nil, nil
}

// Claim is TryClaim, but waits until nobody else claims any of the spans, or
// ctx is done. A process that is killed has no claims. Whoever waits should look
// afterwards whether the spans are there now.
func (s *Store) Claim(ctx context.Context, first, n int) (release func(), err error) {
	err = repeat(ctx, maxClaimWait, func() (ok bool, err error) {
		release, ok, err = s.TryClaim(first, n)
		return ok, err
	})
	return release, err
}

// claimable refuses spans that the store does not have.
func (s *Store) claimable(first, n int) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.outside(first, n, 0, 0) || s.have == nil {
		return s.misuse(first, n, 0, 0)
	}
	return nil
}

// try returns nil if the spans cannot be claimed now.
func (c *spanClaims) try(first, n int) (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fs.ErrClosed
	}
	r := claimed{first, first + n}
	if n == 0 {
		return func() {}, nil
	}
	for _, o := range c.own {
		if r.first < o.end && o.first < r.end {
			return nil, nil
		}
	}
	if ok, err := c.lockLocked(r); !ok || err != nil {
		return nil, err
	}
	c.own = append(c.own, r)
	return sync.OnceFunc(func() { c.release(r) }), nil
}

// lockLocked opens the file when the first span is claimed: most stores are only
// read. If the folder was deleted nobody else will open this store.
func (c *spanClaims) lockLocked(r claimed) (bool, error) {
	if c.file == nil {
		f, err := os.OpenFile(c.path, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, fullIfSo(err)
		}
		c.file = f
	}
	return lockRange(c.file, int64(r.first), int64(r.end-r.first))
}

func (c *spanClaims) release(r claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = slices.DeleteFunc(c.own, func(o claimed) bool { return o == r })
	if c.closed || c.file == nil {
		return
	}
	// If it fails, others wait until the store is closed.
	_ = unlockRange(c.file, int64(r.first), int64(r.end-r.first))
}

func (c *spanClaims) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

// Lock waits until no other process, and nobody else of this one, holds the
// lock of key, or ctx is done. It is for whoever fetches a document or makes an
// index: look again, under the lock, whether it is there now.
func (c *Cache) Lock(ctx context.Context, key digest.Digest) (unlock func() error, err error) {
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("lock of %s: %w", key, err)
	}
	f, err := acquire(ctx, filepath.Join(c.dir, "locks", key.Algorithm().String(), key.Encoded()))
	if err != nil {
		return nil, fmt.Errorf("lock of %s: %w", key, err)
	}
	return sync.OnceValue(func() error {
		// Who waits for a file that was deleted sees that, and begins anew. If
		// somebody deleted ours, that name is another's. Windows keeps the file.
		if ours, err := isAt(f, f.Name()); ours && err == nil {
			_ = os.Remove(f.Name())
		}
		return f.Close()
	}), nil
}
