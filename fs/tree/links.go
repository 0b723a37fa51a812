package tree

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// walker finds the directory that a path names in what the lowest n layers
// show, the layer being settled on top if there is one. Symlinks are followed
// within the root. What is missing or no directory is passed by name, so that
// ".." leads back from it, as umoci and containerd have it.
type walker struct {
	m     *merger
	top   *settler // nil if the lowest n layers are all
	at    []place  // from the root to where the walk stands
	links int
}

// place is a directory on the way, or with neither dir nor parts a name that
// stands for none.
type place struct {
	name  string
	dir   uint32     // row in the layer being settled, or layer.None
	parts flat.Range // of the layers below
}

func (p place) exists() bool { return p.dir != layer.None || p.parts.Count > 0 }

func (m *merger) walker(n int) *walker {
	return &walker{m: m, at: []place{{dir: layer.None, parts: m.root(n).parts}}}
}

func (w *walker) here() place { return w.at[len(w.at)-1] }

// walk goes on to the directory at rest.
func (w *walker) walk(rest string) error {
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			w.at = w.at[:max(1, len(w.at)-1)]
			continue
		}
		next, link, err := w.child(name)
		switch {
		case err != nil:
			return err
		case link == "":
			if w.at = append(w.at, next); len(w.at) > maxDepth {
				return exceeds("directories deep", len(w.at), maxDepth)
			}
			continue
		}
		if w.links++; w.links > maxLinks {
			return ErrLoop
		}
		if err := w.m.charge(len(link) + len(rest)); err != nil {
			return err
		}
		if strings.HasPrefix(link, "/") {
			w.at = w.at[:1]
		}
		rest = link + "/" + rest
	}
	return nil
}

// child returns the place of name below here, or the target of the symlink
// that it is.
func (w *walker) child(name string) (place, string, error) {
	next := place{name: name, dir: layer.None}
	here := w.here()
	lower, err := w.m.lookup(here.parts, name)
	if err != nil {
		return next, "", err
	}
	if here.dir != layer.None {
		if e, ok := w.top.entry(here.dir, name); ok {
			if w.top.isDir(e) {
				next.dir, next.parts = e.Inode, w.top.below(e.Inode, lower.parts)
			}
			return next, w.top.symlink(e), nil
		}
	}
	next.parts = lower.parts
	return next, w.m.symlink(lower), nil
}

// symlink returns the target of the symlink that v shows, "" if it does not.
func (m *merger) symlink(v view) string {
	if !v.found || v.link != "" {
		return ""
	}
	x := m.layers[v.object.layer]
	return x.Pool.String(x.Inodes[v.object.row].Link)
}

// resolveLinks finds what the hard links of layer i to lower layers name. The
// links of the layers below are resolved already.
func (m *merger) resolveLinks(i int) error {
	x := m.layers[i]
	found := make(map[uint32]object)
	for e := range x.Entries {
		if x.Entries[e].Kind != layer.EntryLowerLink {
			continue
		}
		target := x.Pool.String(x.Entries[e].Link)
		o, err := m.target(i, target)
		if err != nil {
			return fmt.Errorf("%s: %w: hard link to %q: %w", entryPath(x, uint32(e)), ErrMalformed, target, err)
		}
		found[uint32(e)] = o
	}
	m.links[i] = found
	return nil
}

// target returns the file that a hard link of layer i to name stands for. A
// symlink of a lower layer may lead to what layer i itself has, so that comes
// first; but its whiteouts do not keep the link from what they hide.
func (m *merger) target(i int, name string) (object, error) {
	for range maxLinks {
		v, err := m.resolve(i+1, name)
		if errors.Is(err, ErrLoop) || err == nil && !v.found {
			v, err = m.resolve(i, name)
		}
		switch {
		case err != nil:
			return object{}, err
		case !v.found:
			return object{}, errors.New("no lower layer has it")
		case v.dir:
			return object{}, errors.New("it is a directory")
		case v.link == "":
			return v.object, nil
		}
		name = v.link
	}
	return object{}, ErrLoop
}

// resolve returns what the lowest n layers show at name; a symlink is followed
// on the way, but not if name itself is one.
func (m *merger) resolve(n int, name string) (view, error) {
	defer func(n int) { m.parts = m.parts[:n] }(len(m.parts))
	w := m.walker(n)
	if err := w.walk(path.Dir(name)); err != nil {
		return view{}, err
	}
	return m.lookup(w.here().parts, path.Base(name))
}
