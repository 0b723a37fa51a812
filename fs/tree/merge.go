package tree

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// Merge returns what the layers, bottom first, show together.
//
// The rules are in three files: settle.go moves a layer's directories to where
// symlinks of lower layers lead, links.go walks paths through symlinks and
// finds the targets of hard links, this one overlays the settled layers. Its
// error is ErrMalformed with the layer and, where there is one, the path.
func Merge(layers []*layer.Index) (*Tree, error) {
	return merge(layers, defaultLimits())
}

func merge(layers []*layer.Index, most limits) (*Tree, error) {
	m := &merger{
		most:   most,
		layers: slices.Clone(layers),
		links:  make([]map[uint32]object, len(layers)),
		rows:   make([][]uint32, len(layers)),
		out:    &Tree{},
	}
	for i, x := range layers {
		err := m.settle(i)
		if err == nil {
			err = m.resolveLinks(i)
		}
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", x.Pool.String(x.Info.Blob), err)
		}
	}
	if err := m.run(); err != nil {
		return nil, err
	}
	m.identify(layers)
	if err := m.out.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m.out, nil
}

// object is an inode of one layer. Whatever shows in the merged view is one,
// so that names in any layer which share an object share a row.
type object struct{ layer, row uint32 }

// ref is an entry of one layer.
type ref struct{ layer, entry uint32 }

// merger holds a merge under way.
type merger struct {
	most   limits
	layers []*layer.Index      // as settle left them
	links  []map[uint32]object // by layer and entry row: what an EntryLowerLink names
	rows   [][]uint32          // by layer and inode row of a file: row in out, or layer.None
	out    *Tree
	pool   flat.PoolBuilder
	steps  int // as limits.steps counts them

	symlinks bool // in the layers settled so far

	// dirs are the directories of out in order of row; run takes them one
	// after the other while it finds new ones.
	dirs []directory
	// parts are the objects that the directories are made of, a directory's
	// together, topmost first.
	parts []object
	refs  []ref // scratch of children
}

// directory is a directory of out whose entries are the union of its parts'.
type directory struct {
	row   uint32
	parts flat.Range
}

// view is what the layers say of one path; it is shown layer after layer,
// topmost first, until one of them says that lower ones do not matter.
type view struct {
	object    object // the file, or the directory whose attributes count
	found     bool
	dir       bool
	described bool // object is a directory that some tar entry describes
	opaque    bool // lower directories may give attributes but not entries
	parts     flat.Range
	link      string // instead of object: the path that a hard link not yet resolved names
}

// entry shows v an entry of a name; it reports whether lower layers matter.
func (m *merger) entry(v *view, r ref) bool {
	x := m.layers[r.layer]
	e := &x.Entries[r.entry]
	switch {
	case e.Kind == layer.EntryWhiteout:
		return false
	case e.Kind == layer.EntryInode && isDir(x.Inodes[e.Inode].Mode):
		return m.directory(v, object{r.layer, e.Inode})
	case v.found: // an upper directory replaces the file
	case e.Kind == layer.EntryLowerLink:
		v.found = true
		var ok bool
		if v.object, ok = m.links[r.layer][r.entry]; !ok {
			v.link = x.Pool.String(e.Link)
		}
	default:
		v.object, v.found = object{r.layer, e.Inode}, true
	}
	return false
}

// directory shows v a directory; it reports whether lower layers matter.
func (m *merger) directory(v *view, o object) bool {
	flags := m.layers[o.layer].Inodes[o.row].Flags
	described := flags&layer.Implicit == 0
	if !v.found || described && !v.described {
		v.object, v.described = o, described
	}
	v.found, v.dir = true, true
	if !v.opaque {
		if v.parts.Count == 0 {
			v.parts.First = uint32(len(m.parts))
		}
		m.parts = append(m.parts, o)
		v.parts.Count++
	}
	v.opaque = v.opaque || flags&layer.Opaque != 0
	return !v.opaque || !v.described
}

// root returns the view of the root directory of the lowest n layers.
func (m *merger) root(n int) view {
	var v view
	for i := n - 1; i >= 0 && m.directory(&v, object{uint32(i), 0}); i-- {
	}
	return v
}

func (m *merger) children(o object) flat.Range { return m.layers[o.layer].Inodes[o.row].Children }

func (m *merger) name(r ref) string {
	x := m.layers[r.layer]
	return x.Pool.String(x.Entries[r.entry].Name)
}

// lookup returns the view of name in the directory made of parts.
func (m *merger) lookup(parts flat.Range, name string) (view, error) {
	var v view
	if err := m.charge(1 + int(parts.Count)); err != nil {
		return v, err
	}
	for _, o := range m.parts[parts.First:][:parts.Count] {
		if e, ok := find(m.layers[o.layer], o.row, name); ok && !m.entry(&v, ref{o.layer, e}) {
			break
		}
	}
	return v, nil
}

// find returns the row of the entry that directory dir of x has of name.
func find(x *layer.Index, dir uint32, name string) (uint32, bool) {
	c := x.Inodes[dir].Children
	i := uint32(sort.Search(int(c.Count), func(i int) bool {
		return x.Pool.String(x.Entries[c.First+uint32(i)].Name) >= name
	}))
	return c.First + i, i < c.Count && x.Pool.String(x.Entries[c.First+i].Name) == name
}

// charge counts steps against the limit.
func (m *merger) charge(n int) error {
	if m.steps += n; m.steps > m.most.steps {
		return exceeds("steps along the paths of links", m.steps, m.most.steps)
	}
	return nil
}

// run fills out, breadth first from the root.
func (m *merger) run() error {
	total := 0
	for i, x := range m.layers {
		total += len(x.Inodes)
		m.rows[i] = slices.Repeat([]uint32{layer.None}, len(x.Inodes))
	}
	total = min(total, m.most.names) + 1
	m.out.Inodes = make([]Inode, 0, total)
	m.out.Entries = make([]Entry, 0, total)
	if err := m.start(); err != nil {
		return err
	}
	for i := 0; i < len(m.dirs); i++ {
		if err := m.fill(m.dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

// identify completes out with the layers that it was made of.
func (m *merger) identify(layers []*layer.Index) {
	for _, x := range layers {
		l := identity(x)
		l.Blob = m.pool.Add(x.Pool.String(x.Info.Blob))
		l.Claim = m.pool.Add(x.Pool.String(x.Info.Claim))
		m.out.Layers = append(m.out.Layers, l)
	}
	m.out.Pool = m.pool.Pool()
}

// start allots row 0.
func (m *merger) start() error {
	if len(m.layers) == 0 {
		m.out.Inodes = append(m.out.Inodes, Inode{Inode: layer.Inode{Mode: typeDir | 0o755, Flags: layer.Implicit}, Nlink: 2})
		return nil
	}
	root := m.root(len(m.layers))
	row, err := m.allot(root.object, 0)
	m.dirs = append(m.dirs, directory{row: row, parts: root.parts})
	return err
}

// fill appends the entries of d to out.
func (m *merger) fill(d directory) error {
	first := uint32(len(m.out.Entries))
	refs := m.childrenOf(d)
	for len(refs) > 0 {
		name := m.name(refs[0])
		n := 1
		for n < len(refs) && m.name(refs[n]) == name {
			n++
		}
		var v view
		for _, r := range refs[:n] {
			if !m.entry(&v, r) {
				break
			}
		}
		refs = refs[n:]
		if !v.found {
			continue
		}
		if err := m.add(d.row, name, v); err != nil {
			return err
		}
	}
	m.out.Inodes[d.row].Children = flat.Range{First: first, Count: uint32(len(m.out.Entries)) - first}
	return nil
}

// childrenOf returns the entries of all parts of d by name, a name's topmost
// first. The slice is good until the next call.
func (m *merger) childrenOf(d directory) []ref {
	m.refs = m.refs[:0]
	for _, o := range m.parts[d.parts.First:][:d.parts.Count] {
		c := m.children(o)
		for e := c.First; e < c.First+c.Count; e++ {
			m.refs = append(m.refs, ref{o.layer, e})
		}
	}
	if d.parts.Count > 1 {
		slices.SortFunc(m.refs, func(a, b ref) int {
			if c := strings.Compare(m.name(a), m.name(b)); c != 0 {
				return c
			}
			return int(b.layer) - int(a.layer)
		})
	}
	return m.refs
}

// add appends one entry to directory dir, which is being filled.
func (m *merger) add(dir uint32, name string, v view) (err error) {
	row := m.rows[v.object.layer][v.object.row]
	switch {
	case v.dir:
		row, err = m.allot(v.object, dir)
		m.dirs = append(m.dirs, directory{row: row, parts: v.parts})
		m.out.Inodes[dir].Nlink++
	case row == layer.None:
		row, err = m.allot(v.object, dir)
		m.rows[v.object.layer][v.object.row] = row
	}
	if err != nil {
		return err
	}
	n := &m.out.Inodes[row]
	if !v.dir {
		n.Nlink++
	}
	at, err := m.str(name)
	m.out.Entries = append(m.out.Entries, Entry{Name: at, Inode: row, Type: n.Mode & typeMask})
	if k := len(m.out.Entries); k > m.most.names {
		return over("names", k, m.most.names)
	}
	return err
}

// allot appends a copy of o to the inodes of out, without children.
func (m *merger) allot(o object, parent uint32) (uint32, error) {
	x := m.layers[o.layer]
	n := Inode{Inode: x.Inodes[o.row], Layer: o.layer, Parent: parent}
	extents := x.Extents[n.Extents.First:][:n.Extents.Count]
	xattrs := x.Xattrs[n.Xattrs.First:][:n.Xattrs.Count]
	if k := len(m.out.Extents) + len(extents); k > m.most.extents {
		return 0, over("extents", k, m.most.extents)
	}
	if k := len(m.out.Xattrs) + len(xattrs); k > m.most.xattrs {
		return 0, over("extended attributes", k, m.most.xattrs)
	}
	n.Children, n.Flags = flat.Range{}, n.Flags&layer.Implicit
	if isDir(n.Mode) {
		n.Nlink = 2
	}
	var err error
	if n.Link, err = m.str(x.Pool.String(n.Link)); err != nil {
		return 0, err
	}
	n.Extents = flat.Range{First: uint32(len(m.out.Extents)), Count: uint32(len(extents))}
	m.out.Extents = append(m.out.Extents, extents...)
	n.Xattrs = flat.Range{First: uint32(len(m.out.Xattrs)), Count: uint32(len(xattrs))}
	for _, a := range xattrs {
		name, err := m.str(x.Pool.String(a.Name))
		value, err2 := m.str(x.Pool.String(a.Value))
		if err := errors.Join(err, err2); err != nil {
			return 0, err
		}
		m.out.Xattrs = append(m.out.Xattrs, layer.Xattr{Name: name, Value: value})
	}
	m.out.Inodes = append(m.out.Inodes, n)
	return uint32(len(m.out.Inodes) - 1), nil
}

// str copies s into the pool of out.
func (m *merger) str(s string) (flat.Str, error) {
	if k := len(m.pool.Pool()) + len(s); k > m.most.strings {
		return flat.Str{}, over("bytes of names and attributes", k, m.most.strings)
	}
	return m.pool.Add(s), nil
}
