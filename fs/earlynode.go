package fs

import (
	"slices"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/layer"
)

const (
	// rootID is the node id of the root directory, for the kernel too.
	rootID = 1
	// firstEarly is the first node id of what was shown before the image had
	// rows: no row + 1 is as high.
	firstEarly = 1 << 33
)

// earlyNode is what a path was shown as. Early.mu guards it.
type earlyNode struct {
	id   uint64
	path string     // clean, "" being the root
	one  *tree.Tree // of one row; nil for the root
}

// numbering says which rows the node ids from firstEarly on stand for.
type numbering struct {
	rows []uint32          // layer.None: the image has not got what was shown
	ids  map[uint32]uint64 // by row; of the other rows it is row + 1
}

// row returns the row of a node id from firstEarly on.
func (b *numbering) row(id uint64) (uint32, bool) {
	if id-firstEarly >= uint64(len(b.rows)) {
		return 0, false
	}
	row := b.rows[id-firstEarly]
	return row, row != layer.None
}

// settle compares what was shown with m and returns the node ids of what is
// not so. e.mu is held.
func (e *Early) settle(m *Image) (bad []uint64) {
	b := &numbering{rows: make([]uint32, len(e.nodes)), ids: make(map[uint32]uint64)}
	for i, n := range e.nodes {
		row, err := m.Tree.Walk(n.path)
		if err != nil || !same(m.Tree, row, n.one) {
			b.rows[i] = layer.None
			bad = append(bad, n.id)
			e.log.WithField("path", "/"+n.path).Error("was shown early as what the image has not got; whoever has it open sees EIO")
			continue
		}
		b.rows[i] = row
		if _, ok := b.ids[row]; !ok { // or else a second name of a file
			b.ids[row] = n.id
		}
	}
	e.numbers = b
	return bad
}

// all returns every node id. e.mu is held.
func (e *Early) all() []uint64 {
	out := []uint64{rootID}
	for _, n := range e.nodes {
		out = append(out, n.id)
	}
	return out
}

// same reports whether row of t is what one, of one row, says: of directories
// only that they are some.
func same(t *tree.Tree, row uint32, one *tree.Tree) bool {
	a, b := t.Inodes[row], one.Inodes[0]
	if b.Mode&typeMask == typeDir {
		return a.Mode&typeMask == typeDir
	}
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Size == b.Size &&
		a.MtimeSec == b.MtimeSec && a.MtimeNsec == b.MtimeNsec && a.RdevMajor == b.RdevMajor && a.RdevMinor == b.RdevMinor &&
		t.Link(row) == one.Link(0) && a.Layer == b.Layer && slices.Equal(data(t, row), data(one, 0)) && slices.Equal(xattrs(t, row), xattrs(one, 0))
}

// data returns where the bytes of a file lie.
func data(t *tree.Tree, row uint32) []layer.Extent {
	return slices.DeleteFunc(t.Data(row, nil), func(e layer.Extent) bool { return e.Len == 0 })
}

// xattrs returns names and values in turns.
func xattrs(t *tree.Tree, row uint32) (out []string) {
	for _, x := range t.XattrsOf(row) {
		out = append(out, t.Pool.String(x.Name), t.Pool.String(x.Value))
	}
	return out
}
