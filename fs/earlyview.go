package fs

import (
	"maps"
	"slices"
	"strings"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// File types of Linux, as layer.Header and layer.Inode have them.
const (
	typeMask    = 0o170000
	typeDir     = 0o040000
	typeSymlink = 0o120000
)

// certainty is what can be said of a path by now.
type certainty int

const (
	unknown certainty = iota // or a case that only the merge decides
	absent
	present
)

// sight is what the layers show at a path.
type sight struct {
	state  certainty
	layer  int
	header *layer.Header // of a layer that is streamed
	index  *layer.Index  // or else row of this one
	row    uint32
}

func (s sight) mode() uint32 {
	switch {
	case s.header != nil:
		return s.header.Mode
	case s.index != nil:
		return s.index.Inodes[s.row].Mode
	}
	return typeDir | 0o755 // the root of an image of which nothing is known
}

func (s sight) isDir() bool { return s.mode()&typeMask == typeDir }

// look returns what the lowest n layers show at path, which is not the root.
// It never says of a path what tree.Merge would not, if no later entry of the
// layer in which it is found says otherwise. e.mu is held.
func (e *Early) look(path string, n int) sight {
	var made sight // an upper directory that no entry describes
	for i := n - 1; i >= 0; i-- {
		l := &e.layers[i]
		if l.index == nil {
			return e.streamed(path, i, made)
		}
		if !e.settled(i) {
			return sight{}
		}
		entry, ok, hides := entryAt(l.index, path)
		if ok {
			s := sight{state: present, layer: i, index: l.index, row: entry.Inode}
			_, linked := l.linked[entry.Inode]
			switch {
			case entry.Kind != layer.EntryInode || linked && made.state != present:
				return sight{} // hard links wait
			case !s.isDir() && made.state == present:
				return made // no symlink, since the layer of made is settled
			case !s.isDir():
				return s
			case l.index.Inodes[s.row].Flags&layer.Implicit == 0:
				return s
			case made.state != present:
				made = s
			}
		}
		if hides {
			break
		}
	}
	if made.state == present {
		return made
	}
	return sight{state: absent}
}

// streamed is look at a layer whose end has not come, below the directory made
// of a layer that is settled, if there is one.
func (e *Early) streamed(path string, i int, made sight) sight {
	h := e.layers[i].header(path)
	if h == nil {
		return sight{}
	}
	s := sight{state: present, layer: i, header: h}
	if !s.isDir() && made.state == present {
		return made
	}
	return s
}

// settled reports whether the directories of layer i that no entry describes
// are known to lie behind no symlink of a lower layer, so that the layer shows
// what its index says. e.mu is held.
func (e *Early) settled(i int) bool {
	l := &e.layers[i]
	for len(l.implicit) > 0 {
		s := e.look(l.implicit[0], i)
		if s.state == unknown || s.state == present && s.mode()&typeMask == typeSymlink {
			return false
		}
		l.implicit = l.implicit[1:]
	}
	return true
}

// root returns the root directory by the topmost layer that describes it, of
// those that have come so far. e.mu is held.
func (e *Early) root() sight {
	for i := len(e.layers) - 1; i >= 0; i-- {
		l := &e.layers[i]
		switch h := l.headers[""]; {
		case h != nil:
			return sight{state: present, layer: i, header: h}
		case l.index != nil && l.index.Inodes[0].Flags&layer.Implicit == 0:
			return sight{state: present, layer: i, index: l.index}
		}
	}
	return sight{state: present}
}

// entryAt returns the entry that x has at path, and whether it hides that path
// of the layers below.
func entryAt(x *layer.Index, path string) (found layer.Entry, ok, hides bool) {
	dir, rest, more := uint32(0), path, true
	for more {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		n := &x.Inodes[dir]
		hides = hides || n.Flags&layer.Opaque != 0
		es := x.Entries[n.Children.First:][:n.Children.Count]
		i, ok := slices.BinarySearchFunc(es, name, func(e layer.Entry, name string) int { return strings.Compare(x.Name(e), name) })
		if !ok {
			return found, false, hides
		}
		found = es[i]
		isDir := found.Kind == layer.EntryInode && x.Inodes[found.Inode].Mode&typeMask == typeDir
		if found.Kind == layer.EntryWhiteout || more && !isDir {
			return found, false, true
		}
		dir, hides = found.Inode, hides || !isDir
	}
	return found, true, hides
}

// tree returns a tree of s alone.
func (s sight) tree() *tree.Tree {
	h := s.header
	switch {
	case s.index != nil:
		h = headerOf(s.index, s.row)
	case h == nil:
		h = &layer.Header{Mode: s.mode()}
	}
	var pool flat.PoolBuilder
	t := &tree.Tree{Extents: h.Extents}
	if h.Extents != nil && len(h.Extents) == 0 && h.Size > 0 {
		t.Extents = []layer.Extent{{}} // holes alone
	}
	n := layer.Inode{
		Mode: h.Mode, UID: h.UID, GID: h.GID, Size: h.Size, Addr: h.Addr, MtimeSec: h.MtimeSec, MtimeNsec: h.MtimeNsec,
		RdevMajor: h.RdevMajor, RdevMinor: h.RdevMinor, Extents: flat.Range{Count: uint32(len(t.Extents))},
	}
	if h.Mode&typeMask == typeSymlink {
		n.Link, n.Size = pool.Add(h.Link), int64(len(h.Link))
	}
	for _, name := range slices.Sorted(maps.Keys(h.Xattrs)) {
		t.Xattrs = append(t.Xattrs, layer.Xattr{Name: pool.Add(name), Value: pool.Add(h.Xattrs[name])})
	}
	n.Xattrs.Count = uint32(len(t.Xattrs))
	// One link, also of directories: it tells programs that they cannot count.
	t.Inodes = []tree.Inode{{Inode: n, Layer: uint32(s.layer), Nlink: 1}}
	t.Pool = pool.Pool()
	return t
}

// headerOf is the header that row of x was made of, without its names.
func headerOf(x *layer.Index, row uint32) *layer.Header {
	n := &x.Inodes[row]
	h := &layer.Header{
		Mode: n.Mode, UID: n.UID, GID: n.GID, Size: n.Size, Addr: n.Addr, MtimeSec: n.MtimeSec, MtimeNsec: n.MtimeNsec,
		RdevMajor: n.RdevMajor, RdevMinor: n.RdevMinor, Link: strings.Clone(x.Pool.String(n.Link)), Xattrs: make(map[string]string),
	}
	if n.Extents.Count > 0 {
		h.Extents = slices.Clone(x.Extents[n.Extents.First:][:n.Extents.Count])
	}
	for _, a := range x.Xattrs[n.Xattrs.First:][:n.Xattrs.Count] {
		h.Xattrs[strings.Clone(x.Pool.String(a.Name))] = x.Pool.String(a.Value)
	}
	return h
}
