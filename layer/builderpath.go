package layer

import (
	"fmt"
	"path"
	"strings"
)

// cleanName returns a layer's path relative to the root, "." for the root.
func cleanName(name string) (string, error) {
	if len(name) > maxPath {
		return "", limit("bytes of a path", int64(len(name)), maxPath)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", errEscape
	}
	for rest := clean; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if len(part) > maxName {
			return "", limit("bytes of a name", int64(len(part)), maxName)
		}
	}
	if strings.IndexByte(clean, 0) >= 0 {
		return "", errNUL
	}
	return clean, nil
}

// dir returns the row of the directory at a clean path, "" being the root. It
// makes what is missing on the way.
func (b *Builder) dir(name string) (uint32, error) {
	if name == b.lastDir {
		return b.lastRow, nil
	}
	w := walk{b: b, create: true}
	row, err := w.to(name)
	if err != nil {
		return None, err
	}
	b.lastDir, b.lastRow = name, row
	return row, nil
}

// find returns the node of this layer that a hard link's target names, or None
// and the path, relative to the root and clean, that it stands for.
func (b *Builder) find(target string) (uint32, string, error) {
	name, err := cleanName(target)
	if err != nil {
		return None, "", fmt.Errorf("hard link's target %q: %w", clip(target), err)
	}
	if target == "" {
		return None, "", errLinkEmpty
	}
	if name == "." {
		return None, "", errLinkDir
	}
	dir, base := path.Split(name)
	w := walk{b: b}
	row, err := w.to(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return None, "", fmt.Errorf("hard link's target %q: %w", clip(target), err)
	}
	if row != None {
		if n, ok := b.names[childKey{row, base}]; ok {
			return n, "", nil
		}
	}
	link := path.Join(append(w.path, base)...)
	if len(link) > maxPath {
		return None, "", limit("bytes of a hard link's target", int64(len(link)), maxPath)
	}
	return None, link, nil
}

// walk finds a directory component by component. Symlinks of the layer are
// followed, never out of the root.
type walk struct {
	b      *Builder
	create bool     // make what is missing
	path   []string // from the root to where the walk stands
	rows   []uint32 // the directories of path; None once the walk has left what the layer holds
	links  int
}

func (w *walk) to(name string) (uint32, error) {
	for name != "" {
		var part string
		part, name, _ = strings.Cut(name, "/")
		if w.b.steps++; w.b.steps > maxSteps {
			return None, limit("path components of the layer", int64(w.b.steps), maxSteps)
		}
		switch part {
		case "", ".":
		case "..":
			if n := len(w.path); n > 0 {
				w.path, w.rows = w.path[:n-1], w.rows[:n-1]
			}
		default:
			link, err := w.step(part)
			if err != nil {
				return None, err
			}
			if link != "" {
				name = link + "/" + name
			}
		}
	}
	return w.at(), nil
}

func (w *walk) at() uint32 {
	if len(w.rows) == 0 {
		return 0
	}
	return w.rows[len(w.rows)-1]
}

// step goes down to part, or returns the target of the symlink that it is.
func (w *walk) step(part string) (link string, err error) {
	here := w.at()
	row, known := None, false
	if here != None {
		var n uint32
		if n, known = w.b.names[childKey{here, part}]; known {
			row = w.b.nodes[n].inode
		}
	}
	if row != None {
		switch in := &w.b.inodes[row]; in.Mode & typeMask {
		case typeDir:
			return "", w.push(part, row)
		case typeSymlink:
			return in.link, w.follow(in.link)
		}
	}
	if !w.create {
		return "", w.push(part, None)
	}
	if err := w.b.count(1, int64(len(part))); err != nil {
		return "", err
	}
	in := implicitDir(here)
	if known {
		in.Flags = Opaque // a file was to take the place of a lower directory
	}
	w.b.inodes = append(w.b.inodes, in)
	row = uint32(len(w.b.inodes) - 1)
	w.b.put(here, node{name: part, inode: row})
	return "", w.push(part, row)
}

func (w *walk) follow(link string) error {
	if w.links++; w.links > maxSymlinks {
		return errLoop
	}
	if strings.HasPrefix(link, "/") {
		w.path, w.rows = w.path[:0], w.rows[:0]
	}
	return nil
}

func (w *walk) push(part string, row uint32) error {
	if len(part) > maxName {
		return limit("bytes of a name", int64(len(part)), maxName)
	}
	if len(w.path) == maxDepth {
		return limit("directories deep", maxDepth+1, maxDepth)
	}
	w.path, w.rows = append(w.path, part), append(w.rows, row)
	return nil
}
