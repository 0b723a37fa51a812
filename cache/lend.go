package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Filled returns the digests of the layers that have an index and a store, at
// most so many: those first whose store was written to last.
func (c *Cache) Filled(most int) ([]digest.Digest, error) {
	keys, err := c.Keys("index")
	if err != nil {
		return nil, err
	}
	type filled struct {
		key digest.Digest
		at  time.Time
	}
	all := make([]filled, 0, len(keys))
	for _, key := range keys {
		dir, err := c.layerDir(key)
		if err != nil {
			return nil, err
		}
		fi, err := os.Lstat(filepath.Join(dir, "have"))
		if err == nil {
			all = append(all, filled{key, fi.ModTime()})
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b filled) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.key, b.key)) })
	out := make([]digest.Digest, 0, min(most, len(all)))
	for _, f := range all[:cap(out)] {
		out = append(out, f.key)
	}
	return out, nil
}

// Lender gives bytes of a layer to those who verify them. It holds nothing
// open, so that it keeps nobody from removing or evicting the layer.
type Lender struct {
	key  digest.Digest
	data string // path
	has  func(span int) bool
}

// Lender returns the lender of a layer whose store has that many bytes and
// spans: io/fs.ErrNotExist if there is none.
func (c *Cache) Lender(key digest.Digest, size int64, spans int) (*Lender, error) {
	has, err := c.Stored(key, size, spans)
	if err != nil {
		return nil, err
	}
	dir, err := c.layerDir(key)
	if err != nil {
		return nil, err
	}
	return &Lender{key: key, data: filepath.Join(dir, "data"), has: has}, nil
}

// Has reports whether the spans [first, first+n) were stored when the Lender was
// made, those included that a reboot has put in doubt.
func (l *Lender) Has(first, n int) bool {
	for i := first; i < first+n; i++ {
		if !l.has(i) {
			return false
		}
	}
	return true
}

// Lend fills p with the bytes at addr and reports true, or false if the layer
// is gone. It is for the caller to find out whether the bytes are right: those of
// an evicted span are zero. use, which may be nil, is called while no evictor
// can change them in the file, where they are at addr, too.
func (l *Lender) Lend(p []byte, addr int64, use func(data *os.File) error) (ok bool, err error) {
	defer func() {
		if err != nil {
			ok, err = false, fmt.Errorf("cached layer %s: bytes [%d, +%d): %w", l.key, addr, len(p), err)
		}
	}()
	data, err := os.Open(l.data)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer data.Close() // which unlocks it, too
	if err := lockShared(data); err != nil {
		return false, err
	}
	if _, err := data.ReadAt(p, addr); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if use == nil {
		return true, nil
	}
	return true, use(data)
}
