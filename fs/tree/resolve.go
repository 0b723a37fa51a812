package tree

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of looking paths up, to be compared with errors.Is. The first two
// are of the class errdefs.ErrNotFound.
var (
	ErrNotExist = sentinel.New("no such file or directory", fs.ErrNotExist, errdefs.ErrNotFound)
	ErrNotDir   = sentinel.New("not a directory", errdefs.ErrNotFound)
	ErrLoop     = sentinel.New("too many levels of symbolic links", errdefs.ErrInvalidArgument)

	errIsDir   = sentinel.New("is a directory", errdefs.ErrInvalidArgument)
	errInvalid = sentinel.New("invalid argument", fs.ErrInvalid, errdefs.ErrInvalidArgument)
)

// maxLinks is how many symlinks Resolve follows for one path, as Linux does
// (path_resolution(7)).
const maxLinks = 40

// Walk returns the row of path without following symlinks: one in the middle
// of path is not a directory. Paths start at the root with or without slash;
// empty and "." elements are skipped, ".." leads to the parent and stays at
// the root there.
func (t *Tree) Walk(path string) (uint32, error) {
	return t.walk(path, followNone)
}

// Resolve returns the row of path, following symlinks within the image: an
// absolute target starts at the image's root, and ".." never leads out of it.
func (t *Tree) Resolve(path string) (uint32, error) {
	return t.walk(path, followAll)
}

// ResolveNoFollow is Resolve for a path whose last element may be a symlink
// that is itself wanted, as in lstat(2). A trailing slash follows it yet.
func (t *Tree) ResolveNoFollow(path string) (uint32, error) {
	return t.walk(path, followMiddle)
}

// follow says which symlinks of a path are followed.
type follow int

const (
	followNone follow = iota
	followMiddle
	followAll
)

func (t *Tree) walk(path string, f follow) (uint32, error) {
	row, err := t.steps(path, f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return row, nil
}

func (t *Tree) steps(rest string, f follow) (uint32, error) {
	row, links := uint32(0), 0
	for rest != "" {
		name, after, slash := strings.Cut(rest, "/")
		rest = after
		if !isDir(t.Inodes[row].Mode) {
			return 0, ErrNotDir
		}
		switch name {
		case "", ".":
			continue
		case "..":
			row = t.Inodes[row].Parent
			continue
		}
		next, ok := t.Lookup(row, name)
		if !ok {
			return 0, ErrNotExist
		}
		n := &t.Inodes[next]
		if n.Mode&typeMask == typeSymlink && (f == followAll || f == followMiddle && slash) {
			if links++; links > maxLinks {
				return 0, ErrLoop
			}
			target := t.Link(next) // never empty
			if strings.HasPrefix(target, "/") {
				row = 0
			}
			if slash {
				target += "/" + after
			}
			rest = target
			continue
		}
		if slash && !isDir(n.Mode) {
			return 0, ErrNotDir
		}
		row = next
	}
	return row, nil
}
