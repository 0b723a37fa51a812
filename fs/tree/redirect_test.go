package tree

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// The part of the oracle that follows symlinks of lower layers. It knows paths
// only: what a path shows is found anew for each question.

// lower returns what the layer lets through of the lower ones at p.
func (u *upper) lower(view fileMap, p string) *node {
	for a := p; ; a = path.Dir(a) {
		n := u.files[a]
		switch {
		case u.whiteouts[a]:
			return nil
		case a != p && (u.opaque[a] || u.pending[a] != "" || n != nil && !n.dir()):
			return nil
		case a == ".":
			return view[p]
		}
	}
}

// shown returns what p shows while the layer lies on view.
func (u *upper) shown(view fileMap, p string) *node {
	if n := u.files[p]; n != nil {
		return n
	}
	if u.pending[p] != "" {
		return &node{mode: typeFile}
	}
	return u.lower(view, p)
}

// trace returns the path without symlinks that name leads to, the way that
// filepath-securejoin does.
func trace(name string, at func(string) *node) (string, error) {
	done, todo := []string{}, strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		c := todo[0]
		todo = todo[1:]
		p := path.Join(append(slices.Clone(done), c)...)
		n := at(path.Clean(p))
		switch {
		case c == "" || c == ".":
		case c == "..":
			done = done[:max(0, len(done)-1)]
		case n != nil && n.mode&typeMask == typeSymlink:
			if links++; links > 40 {
				return "", errOracle
			}
			if n.link[0] == '/' {
				done = nil
			}
			todo = append(strings.Split(n.link, "/"), todo...)
		default:
			done = append(done, c)
		}
	}
	return path.Join(append([]string{"."}, done...)...), nil
}

// linkTarget returns the file that a hard link to p is a name of.
func (u *upper) linkTarget(view fileMap, p string) (*node, error) {
	for range 40 {
		found, next := u.linkedIn(func(p string) *node { return u.shown(view, p) }, p)
		if found == nil {
			found, _ = u.linkedIn(func(p string) *node { return view[p] }, p)
			next = ""
		}
		switch {
		case found == nil || found.dir():
			return nil, errOracle
		case next == "":
			return found, nil
		}
		p = next
	}
	return nil, errOracle
}

// linkedIn also returns the path that the layer's own hard link at p names.
func (u *upper) linkedIn(at func(string) *node, p string) (*node, string) {
	dir, err := trace(path.Dir(p), at)
	if err != nil {
		return nil, ""
	}
	p = path.Join(dir, path.Base(p))
	return at(p), u.pending[p]
}

// part is what a layer has at and below one path.
type part struct {
	at string
	upper
}

// redirect moves what the layer has behind symlinks of view.
func (u *upper) redirect(view fileMap) error {
	for p := range u.whiteouts {
		if n := u.files[p]; n != nil {
			n.implicit = false
		}
	}
	var parts []part
	for _, p := range u.paths() {
		if u.isImplicit(p) && isLink(u.lower(view, p)) {
			parts = append(parts, u.take(p, p))
		}
	}
	for len(parts) > 0 {
		more, err := u.give(view, parts[0])
		if err != nil {
			return err
		}
		parts = append(parts[1:], more...)
	}
	return nil
}

func isLink(n *node) bool { return n != nil && n.mode&typeMask == typeSymlink }

func (u *upper) isImplicit(p string) bool {
	n := u.files[p]
	return p != "." && n != nil && n.dir() && n.implicit && !u.whiteouts[p]
}

// paths returns all the layer mentions, a directory before what is below it.
func (u *upper) paths() []string {
	all := map[string]bool{}
	for p := range u.files {
		all[p] = true
	}
	for p := range u.pending {
		all[p] = true
	}
	for p := range u.whiteouts {
		all[p] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		if a == "." || b == "." {
			return strings.Compare(strings.TrimPrefix(a, "."), strings.TrimPrefix(b, "."))
		}
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
}

// take removes what is at p and below, to be given to the place at.
func (u *upper) take(p, at string) part {
	out := part{at: at, upper: upper{files: fileMap{}, whiteouts: map[string]bool{}, opaque: map[string]bool{}, pending: map[string]string{}}}
	moveBelow(u.files, out.files, p)
	moveBelow(u.whiteouts, out.whiteouts, p)
	moveBelow(u.opaque, out.opaque, p)
	moveBelow(u.pending, out.pending, p)
	return out
}

// moveBelow moves entries; their new paths are relative to p.
func moveBelow[M ~map[string]V, V any](from, to M, p string) {
	for q, v := range from {
		if within(q, p) {
			to[path.Join(".", strings.TrimPrefix(q, p))] = v
			delete(from, q)
		}
	}
}

func mark(set map[string]bool, p string, yes bool) {
	if yes {
		set[p] = true
	}
}

// give puts what t holds where t.at leads to. It returns what has to go on
// through other symlinks.
func (u *upper) give(view fileMap, t part) ([]part, error) {
	to, err := trace(t.at, func(p string) *node { return u.shown(view, p) })
	if err != nil {
		return nil, err
	}
	bare := len(t.pending) == 0
	for p, n := range t.files {
		bare = bare && n.dir() && n.implicit && (p == "." || !t.whiteouts[p])
	}
	if n := u.shown(view, to); bare && (n == nil || !n.dir()) {
		return nil, nil
	}
	for i := range to + "/" {
		if (to + "/")[i] != '/' {
			continue
		}
		n := u.shown(view, to[:i])
		if n != nil && !n.dir() {
			return nil, errOracle
		}
		if u.files[to[:i]] == nil {
			u.files[to[:i]] = &node{mode: typeDir | 0o755, implicit: true, layer: u.layer}
		}
	}
	var more []part
	for _, p := range t.paths() {
		at := path.Join(to, p)
		n := t.files[p]
		switch {
		case n == nil && t.pending[p] == "" && !t.whiteouts[p]: // taken
		case p == ".":
			mark(u.opaque, at, t.opaque[p])
		case t.isImplicit(p) && isLink(u.shown(view, at)):
			more = append(more, t.take(p, at))
		case n != nil && n.dir():
			u.giveDir(at, n)
			mark(u.opaque, at, t.opaque[p])
			mark(u.whiteouts, at, t.whiteouts[p])
		case t.whiteouts[p] && n == nil && t.pending[p] == "":
			u.whiteouts[at] = true
		default:
			u.clear(at)
			if n != nil {
				u.files[at] = n
			} else {
				u.pending[at] = t.pending[p]
			}
		}
	}
	return more, nil
}

// giveDir puts a directory at p; one that is there stays unless n describes it.
func (u *upper) giveDir(p string, n *node) {
	old, pending := u.files[p], u.pending[p] != ""
	if old != nil && old.dir() && n.implicit {
		return
	}
	n.implicit = n.implicit && old == nil && !pending
	u.put(p, n)
}
