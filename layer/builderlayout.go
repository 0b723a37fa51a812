package layer

import (
	"cmp"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/flat"
)

// InfoInput is an Info before its strings have a place in a pool.
type InfoInput struct {
	Blob, DiffID, Claim      digest.Digest
	Origin, Reason, Resident string
	BlobSize, AddrSize       int64 // bytes
	Landmark                 int64 // as in Info
	Format                   FormatID
	Trust                    Trust
	Digests                  DigestsOf
}

// info gives the strings a place in pool.
func (in InfoInput) info(pool *flat.PoolBuilder) Info {
	return Info{
		Blob: pool.Add(string(in.Blob)), DiffID: pool.Add(string(in.DiffID)), Claim: pool.Add(string(in.Claim)),
		Origin: pool.Add(in.Origin), Reason: pool.Add(in.Reason), Resident: pool.Add(in.Resident),
		BlobSize: in.BlobSize, AddrSize: in.AddrSize, Landmark: in.Landmark, Format: in.Format, Trust: in.Trust, Digests: in.Digests,
	}
}

// Cut is how a layer's address space is cut up. Checkpoints and their windows
// belong to gzip and zstd layers.
type Cut struct {
	Spans       []Span
	Chunks      []Chunk
	Checkpoints []Checkpoint
	Windows     []byte
}

// Index lays out what was added, together with the cut of the address space.
// The same headers and cut give the same bytes. Its error is ErrMalformed; the
// Builder must not be used afterwards.
func (b *Builder) Index(info InfoInput, cut Cut) (*Index, error) {
	if err := b.resolveLinks(); err != nil {
		return nil, err
	}
	b.applyWhiteouts()
	x := &Index{Spans: cut.Spans, Chunks: cut.Chunks, Checkpoints: cut.Checkpoints, Windows: cut.Windows}
	l := layout{b: b, rows: make([]uint32, len(b.inodes)), x: x}
	l.run()
	x.Info = info.info(&l.pool)
	x.Pool = l.pool.Pool()
	if err := x.validateTables(); err != nil {
		return nil, malformed("%w", err)
	}
	x.sortDigests()
	return x, nil
}

// resolveLinks finds the targets of hard links that came before them, and
// leaves those that are not in this layer to the layers below.
func (b *Builder) resolveLinks() error {
	onChain := make(map[uint32]bool)
	for _, first := range b.pending {
		var chain []uint32
		at, link, clash := first, "", false
		for at != None && b.nodes[at].inode == None && b.nodes[at].link != "" {
			if clash = onChain[at]; clash {
				break
			}
			onChain[at] = true
			chain = append(chain, at)
			var err error
			if at, link, err = b.find(b.nodes[at].link); err != nil {
				return malformed("hard link %q: %w", b.nodes[first].name, err)
			}
		}
		switch {
		case clash:
			return malformed("hard link %q to %q: %w", b.nodes[first].name, b.nodes[first].link, errLinkCycle)
		case at != None && b.nodes[at].inode != None && b.inodes[b.nodes[at].inode].isDir():
			return malformed("hard link %q to %q: %w", b.nodes[first].name, b.nodes[first].link, errLinkDir)
		}
		for _, n := range chain {
			delete(onChain, n)
			if at != None {
				b.nodes[n].inode = b.nodes[at].inode
			}
			b.nodes[n].link = link
		}
	}
	return nil
}

// applyWhiteouts lets go of the whiteouts of names that the layer also has:
// those replace the lower entry anyway, but for directories, which would merge.
func (b *Builder) applyWhiteouts() {
	for key := range b.whiteouts {
		n, ok := b.names[key]
		if !ok {
			continue
		}
		delete(b.whiteouts, key)
		if row := b.nodes[n].inode; row != None && b.inodes[row].isDir() {
			b.inodes[row].Flags = Opaque
		}
	}
}

// layout numbers the inodes breadth first and writes the tables.
type layout struct {
	b         *Builder
	rows      []uint32 // new row + 1 of an old inode row
	order     []uint32 // old rows in the new order
	whiteouts map[uint32][]string
	pool      flat.PoolBuilder
	x         *Index
}

func (l *layout) run() {
	l.whiteouts = make(map[uint32][]string)
	for key := range l.b.whiteouts {
		l.whiteouts[key.dir] = append(l.whiteouts[key.dir], key.name)
	}
	l.x.Inodes = make([]Inode, 0, len(l.b.inodes))
	l.x.Entries = make([]Entry, 0, len(l.b.nodes)+len(l.b.whiteouts))
	l.row(0)
	for i := 0; i < len(l.order); i++ {
		old := l.order[i]
		if l.b.inodes[old].isDir() {
			l.x.Inodes[i].Children = l.children(old)
		}
	}
	for old, sum := range l.b.sums {
		if row := l.rows[old]; row != 0 {
			l.x.Files = append(l.x.Files, File{SHA256: sum, Inode: row - 1})
		}
	}
	slices.SortFunc(l.x.Files, compareFiles)
}

// row returns the new row of an inode, giving it the next one when it is first
// met.
func (l *layout) row(old uint32) uint32 {
	if at := l.rows[old]; at != 0 {
		return at - 1
	}
	in := &l.b.inodes[old]
	rec := in.Inode
	rec.Link = l.pool.Add(in.link)
	rec.Extents = flat.Range{First: uint32(len(l.x.Extents)), Count: uint32(len(in.extents))}
	l.x.Extents = append(l.x.Extents, in.extents...)
	rec.Xattrs = flat.Range{First: uint32(len(l.x.Xattrs)), Count: uint32(len(in.xattrs))}
	for _, name := range slices.Sorted(maps.Keys(in.xattrs)) {
		l.x.Xattrs = append(l.x.Xattrs, Xattr{Name: l.pool.Add(name), Value: l.pool.Add(in.xattrs[name])})
	}
	l.x.Inodes = append(l.x.Inodes, rec)
	l.order = append(l.order, old)
	l.rows[old] = uint32(len(l.x.Inodes))
	return uint32(len(l.x.Inodes) - 1)
}

// children writes a directory's entries.
func (l *layout) children(dir uint32) flat.Range {
	b := l.b
	var nodes []*node
	for n := b.inodes[dir].first; n != None; n = b.nodes[n].next {
		if !b.nodes[n].dead {
			nodes = append(nodes, &b.nodes[n])
		}
	}
	for _, name := range l.whiteouts[dir] {
		nodes = append(nodes, &node{name: name, inode: None})
	}
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	r := flat.Range{First: uint32(len(l.x.Entries)), Count: uint32(len(nodes))}
	for _, n := range nodes {
		e := Entry{Name: l.pool.Add(n.name), Inode: None, Kind: EntryWhiteout}
		switch {
		case n.inode != None:
			e.Inode, e.Kind = l.row(n.inode), EntryInode
		case n.link != "":
			e.Link, e.Kind = l.pool.Add(n.link), EntryLowerLink
		}
		l.x.Entries = append(l.x.Entries, e)
	}
	return r
}
