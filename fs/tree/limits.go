package tree

import (
	"fmt"

	"github.com/peelfs/peel/layer"
)

// limits are what an image may need. One of 200 000 files makes a table of
// some 25 MB in a fifth of a second; these stop what needs GBs or minutes.
type limits struct {
	names   int // in all directories
	extents int
	xattrs  int
	strings int // bytes
	steps   int // along the paths of links: directories of a layer searched, bytes of paths made
}

func defaultLimits() limits {
	return limits{names: 1 << 22, extents: 1 << 24, xattrs: 1 << 24, strings: 1 << 30, steps: 1 << 28}
}

func over(what string, value, limit int) error {
	return fmt.Errorf("%w: %w", ErrMalformed, exceeds(what, value, limit))
}

func exceeds(what string, value, limit int) error {
	return fmt.Errorf("%s: %d exceed the limit of %d", what, value, limit)
}

// Limits on what symlinks lead to; paths within a layer were checked with it.
const (
	maxDepth = 2048 // directories
	maxName  = 255  // bytes; NAME_MAX
)

// maxPath is how much of a path a message shows, bytes.
const maxPath = 4096

// entryPath returns the path of an entry in its layer, for messages.
func entryPath(x *layer.Index, entry uint32) string {
	dirs := make([]uint32, len(x.Entries)) // whose child an entry is
	names := make([]uint32, len(x.Inodes)) // the last entry of an inode
	for row, n := range x.Inodes {
		for e := n.Children.First; e < n.Children.First+n.Children.Count; e++ {
			dirs[e] = uint32(row)
			if i := x.Entries[e].Inode; i != layer.None {
				names[i] = e
			}
		}
	}
	path := x.Pool.String(x.Entries[entry].Name)
	for dir := dirs[entry]; dir != 0 && len(path) < maxPath; dir = dirs[names[dir]] {
		path = x.Pool.String(x.Entries[names[dir]].Name) + "/" + path
	}
	return path
}
