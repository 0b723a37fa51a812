package tree

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// settler moves directories of one layer that no tar entry describes, and that
// meet a symlink of a lower layer, to where the symlink leads. To an eager
// extractor only the entries below such a directory exist, and it writes them
// through the symlink; a described directory replaces the symlink instead.
//
// What lies behind no symlink stays in its place. The directories behind
// symlinks follow in the order of their paths. Each is resolved in what the
// layer shows by then, its own symlinks included, and its entries replace
// those that the layer has there already; directories unite.
type settler struct {
	m       *merger
	x       *layer.Index // the layer as it was given
	root    flat.Range   // root directories of the layers below
	inodes  []layer.Inode
	pool    flat.Pool
	changed map[uint32]map[string]layer.Entry // entries by name, of directories that no longer have those of x
	names   []string                          // path of the directory being searched
	behind  []behind
	facts   []facts // by row of x
}

// behind is a directory that waits to be moved.
type behind struct {
	path string // through symlinks
	dir  uint32
}

// facts are properties of a directory of the layer as it was given.
type facts struct {
	implicit bool // it is an implicit directory, or holds one
	bare     bool // it is an implicit directory that holds nothing but whiteouts
}

// settle makes m.layers[i] a layer whose paths lead through no symlink of the
// layers below, which are settled already.
func (m *merger) settle(i int) error {
	x := m.layers[i]
	s := &settler{m: m, x: x, inodes: x.Inodes, pool: slices.Clip(x.Pool), changed: make(map[uint32]map[string]layer.Entry)}
	if m.symlinks && s.learn() {
		defer func(n int) { m.parts = m.parts[:n] }(len(m.parts))
		s.root = m.root(i).parts
		if err := s.run(); err != nil {
			return err
		}
		if len(s.changed) > 0 {
			m.layers[i] = s.index()
		}
	}
	m.symlinks = m.symlinks || slices.ContainsFunc(x.Inodes, func(n layer.Inode) bool { return n.Mode&typeMask == typeSymlink })
	return nil
}

// learn finds the facts; it reports whether a directory but the root is
// implicit. A directory's row is lower than those of its children.
func (s *settler) learn() bool {
	s.facts = make([]facts, len(s.x.Inodes))
	found := false
	for row := len(s.x.Inodes) - 1; row >= 0; row-- {
		n := &s.x.Inodes[row]
		if !isDir(n.Mode) {
			continue
		}
		implicit := n.Flags&layer.Implicit != 0
		f := facts{implicit: implicit, bare: implicit}
		for _, e := range s.given(uint32(row)) {
			sub := s.isDir(e)
			f.implicit = f.implicit || sub && s.facts[e.Inode].implicit
			f.bare = f.bare && (e.Kind == layer.EntryWhiteout || sub && s.facts[e.Inode].bare)
		}
		s.facts[row] = f
		found = found || implicit && row > 0
	}
	return found
}

func (s *settler) run() error {
	if err := s.search(0, s.below(0, s.root)); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(s.behind) > 0 {
		s.inodes = slices.Clone(s.inodes)
	}
	for i := 0; i < len(s.behind); i++ {
		n := len(s.m.parts)
		if err := s.move(s.behind[i]); err != nil {
			return fmt.Errorf("%s: %w: %w", s.behind[i].path, ErrMalformed, err)
		}
		s.m.parts = s.m.parts[:n]
	}
	return nil
}

// search finds the directories below dir that lie behind symlinks of the lower
// directories parts, and takes them away.
func (s *settler) search(dir uint32, parts flat.Range) error {
	if parts.Count == 0 {
		return nil
	}
	for _, e := range s.given(dir) {
		if !s.isDir(e) || !s.facts[e.Inode].implicit {
			continue
		}
		n := len(s.m.parts)
		if err := s.searchIn(dir, parts, e); err != nil {
			return err
		}
		s.m.parts = s.m.parts[:n]
	}
	return nil
}

func (s *settler) searchIn(dir uint32, parts flat.Range, e layer.Entry) error {
	name := s.pool.String(e.Name)
	lower, err := s.m.lookup(parts, name)
	if err != nil {
		return err
	}
	s.names = append(s.names, name)
	defer func() { s.names = s.names[:len(s.names)-1] }()
	if s.isImplicit(e.Inode) && s.m.symlink(lower) != "" {
		delete(s.entries(dir), name)
		return s.postpone(e.Inode)
	}
	return s.search(e.Inode, s.below(e.Inode, lower.parts))
}

// postpone lets dir, at s.names, wait for its turn to be moved.
func (s *settler) postpone(dir uint32) error {
	path := strings.Join(s.names, "/")
	s.behind = append(s.behind, behind{path: path, dir: dir})
	return s.m.charge(len(path))
}

// move puts the entries of a directory where its path leads. Whiteouts alone
// make no directory there.
func (s *settler) move(b behind) error {
	w := &walker{m: s.m, top: s, at: []place{{parts: s.below(0, s.root)}}}
	if err := w.walk(b.path); err != nil {
		return err
	}
	if s.facts[b.dir].bare && !w.here().exists() {
		return nil
	}
	s.names = s.names[:0]
	for _, p := range w.at[1:] {
		s.names = append(s.names, p.name)
	}
	dir, parts, err := s.mkdir(s.names)
	if err != nil {
		return err
	}
	return s.unite(b.dir, dir, parts)
}

// mkdir returns the layer's directory at a path without symlinks, and those of
// the layers below. It makes what is missing.
func (s *settler) mkdir(names []string) (uint32, flat.Range, error) {
	dir, parts := uint32(0), s.below(0, s.root)
	for i, name := range names {
		lower, err := s.m.lookup(parts, name)
		if err != nil {
			return 0, flat.Range{}, err
		}
		e, known := s.entry(dir, name)
		hidden := known && e.Kind == layer.EntryWhiteout
		switch {
		case known && !hidden && !s.isDir(e), !known && lower.found && !lower.dir:
			return 0, flat.Range{}, fmt.Errorf("leads to %s: %w", strings.Join(names[:i+1], "/"), ErrNotDir)
		case !known || hidden:
			if e, err = s.create(name); err != nil {
				return 0, flat.Range{}, err
			}
			if hidden {
				s.inodes[e.Inode].Flags = layer.Opaque
			}
			s.entries(dir)[name] = e
		}
		dir, parts = e.Inode, s.below(e.Inode, lower.parts)
	}
	return dir, parts, nil
}

// create returns an entry of a new implicit directory.
func (s *settler) create(name string) (layer.Entry, error) {
	made := len(s.inodes) - len(s.x.Inodes) + 1
	used := len(s.pool) - len(s.x.Pool) + len(name)
	switch most := s.m.most; {
	case len(name) > maxName:
		return layer.Entry{}, exceeds("bytes of a name", len(name), maxName)
	case made > most.names:
		return layer.Entry{}, exceeds("directories made", made, most.names)
	case used > most.strings:
		return layer.Entry{}, exceeds("bytes of their names", used, most.strings)
	}
	at := flat.Str{Off: uint32(len(s.pool)), Len: uint32(len(name))}
	s.pool = append(s.pool, name...)
	s.inodes = append(s.inodes, layer.Inode{Mode: typeDir | 0o755, Flags: layer.Implicit})
	return layer.Entry{Name: at, Inode: uint32(len(s.inodes) - 1), Kind: layer.EntryInode}, nil
}

// unite adds the entries of directory from, which the layer no longer shows,
// to dir, at s.names. The directories of the layers below dir are parts.
func (s *settler) unite(from, dir uint32, parts flat.Range) error {
	s.inodes[dir].Flags |= s.inodes[from].Flags & layer.Opaque
	parts = s.below(dir, parts)
	for _, e := range s.given(from) {
		if err := s.add(dir, parts, e); err != nil {
			return err
		}
	}
	return nil
}

func (s *settler) add(dir uint32, parts flat.Range, e layer.Entry) error {
	name := s.pool.String(e.Name)
	old, known := s.entry(dir, name)
	switch {
	case s.isDir(e):
		s.names = append(s.names, name)
		defer func() { s.names = s.names[:len(s.names)-1] }()
		return s.addDir(dir, parts, e)
	case e.Kind != layer.EntryWhiteout || !known:
		s.entries(dir)[name] = e
	case s.isDir(old):
		s.inodes[old.Inode].Flags = layer.Opaque
	}
	return nil
}

// addDir adds a directory, at s.names, to dir.
func (s *settler) addDir(dir uint32, parts flat.Range, e layer.Entry) error {
	name := s.pool.String(e.Name)
	lower, err := s.m.lookup(parts, name)
	if err != nil {
		return err
	}
	old, known := s.entry(dir, name)
	n := &s.inodes[e.Inode]
	link := s.m.symlink(lower)
	if known {
		link = s.symlink(old)
	}
	switch {
	case known && s.isDir(old):
		if !s.isImplicit(e.Inode) {
			n.Flags |= s.inodes[old.Inode].Flags & layer.Opaque
			s.inodes[old.Inode] = *n
		}
		return s.unite(e.Inode, old.Inode, lower.parts)
	case s.isImplicit(e.Inode) && link != "":
		return s.postpone(e.Inode)
	case known:
		n.Flags = layer.Opaque // the file or whiteout had replaced a lower directory wholly
	}
	s.entries(dir)[name] = e
	return s.search(e.Inode, s.below(e.Inode, lower.parts))
}

// below returns what shows of the lower directories parts in dir.
func (s *settler) below(dir uint32, parts flat.Range) flat.Range {
	if s.inodes[dir].Flags&layer.Opaque != 0 {
		return flat.Range{}
	}
	return parts
}

// given returns the entries of a directory as the layer was given.
func (s *settler) given(dir uint32) []layer.Entry {
	if int(dir) >= len(s.x.Inodes) {
		return nil
	}
	c := s.x.Inodes[dir].Children
	return s.x.Entries[c.First:][:c.Count]
}

// entry returns the entry that dir has of name by now.
func (s *settler) entry(dir uint32, name string) (layer.Entry, bool) {
	if es, ok := s.changed[dir]; ok {
		e, ok := es[name]
		return e, ok
	}
	if int(dir) >= len(s.x.Inodes) {
		return layer.Entry{}, false
	}
	if i, ok := find(s.x, dir, name); ok {
		return s.x.Entries[i], true
	}
	return layer.Entry{}, false
}

// entries returns the entries of dir to be changed.
func (s *settler) entries(dir uint32) map[string]layer.Entry {
	es, ok := s.changed[dir]
	if !ok {
		es = make(map[string]layer.Entry)
		for _, e := range s.given(dir) {
			es[s.pool.String(e.Name)] = e
		}
		s.changed[dir] = es
	}
	return es
}

func (s *settler) isDir(e layer.Entry) bool {
	return e.Kind == layer.EntryInode && isDir(s.inodes[e.Inode].Mode)
}

func (s *settler) isImplicit(dir uint32) bool { return s.inodes[dir].Flags&layer.Implicit != 0 }

// symlink returns the target of the symlink that e is, "" if it is none.
func (s *settler) symlink(e layer.Entry) string {
	if e.Kind != layer.EntryInode {
		return ""
	}
	return s.pool.String(s.inodes[e.Inode].Link)
}

// index returns the layer as it is by now. Rows of x keep their numbers, also
// those that nothing refers to any more.
func (s *settler) index() *layer.Index {
	out := &layer.Index{
		Info: s.x.Info, Inodes: s.inodes, Extents: s.x.Extents, Xattrs: s.x.Xattrs, Pool: s.pool,
		Entries: make([]layer.Entry, 0, len(s.x.Entries)+len(s.inodes)-len(s.x.Inodes)),
	}
	for row := range out.Inodes {
		out.Inodes[row].Children = flat.Range{}
	}
	dirs := []uint32{0}
	for len(dirs) > 0 {
		dir := dirs[0]
		dirs = dirs[1:]
		es := s.given(dir)
		if now, ok := s.changed[dir]; ok {
			es = es[:0:0]
			for _, name := range slices.Sorted(maps.Keys(now)) {
				es = append(es, now[name])
			}
		}
		out.Inodes[dir].Children = flat.Range{First: uint32(len(out.Entries)), Count: uint32(len(es))}
		out.Entries = append(out.Entries, es...)
		for _, e := range es {
			if s.isDir(e) {
				dirs = append(dirs, e.Inode)
			}
		}
	}
	return out
}
