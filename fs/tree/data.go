package tree

import (
	"context"
	"fmt"
	"math"
	"sort"

	"github.com/peelfs/peel/layer"
)

// Data reads the address spaces of the image's layers.
type Data interface {
	// ReadAt fills p with the bytes at addr of a layer, or returns an error
	// and how many bytes at the start of p are good nevertheless.
	ReadAt(ctx context.Context, layer int, p []byte, addr int64) (int, error)
}

// Data appends to dst where the bytes of the file at row lie, by offset; what
// no extent covers is zero. Without holes that is one extent.
func (t *Tree) Data(row uint32, dst []layer.Extent) []layer.Extent {
	n := &t.Inodes[row]
	switch {
	case n.Mode&typeMask != typeFile || n.Size == 0:
		return dst
	case n.Extents.Count == 0:
		return append(dst, layer.Extent{Addr: n.Addr, Len: n.Size})
	}
	return append(dst, t.extents(n)...)
}

func (t *Tree) extents(n *Inode) []layer.Extent {
	return t.Extents[n.Extents.First : n.Extents.First+n.Extents.Count]
}

// ReadFile reads the regular file at row from offset off on. It returns fewer
// bytes than p holds, and no error, where the file ends. It allocates nothing.
func (t *Tree) ReadFile(ctx context.Context, data Data, row uint32, p []byte, off int64) (int, error) {
	n := &t.Inodes[row]
	if n.Mode&typeMask != typeFile || off < 0 {
		return 0, fmt.Errorf("%s: offset %d: %w", t.Path(row), off, errInvalid)
	}
	if off >= n.Size || len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), n.Size-off)]
	if n.Extents.Count == 0 {
		return data.ReadAt(ctx, int(n.Layer), p, n.Addr+off)
	}
	return t.readPieces(ctx, data, n, p, off)
}

// readPieces fills p, which lies within the file, from extents and holes.
func (t *Tree) readPieces(ctx context.Context, data Data, n *Inode, p []byte, off int64) (int, error) {
	es := t.extents(n)
	i := sort.Search(len(es), func(i int) bool { return es[i].Off+es[i].Len > off })
	done := 0
	for done < len(p) {
		at, rest := off+int64(done), p[done:]
		next := int64(math.MaxInt64)
		if i < len(es) {
			next = es[i].Off
		}
		if at < next {
			hole := rest[:min(int64(len(rest)), next-at)]
			clear(hole)
			done += len(hole)
			continue
		}
		e := es[i]
		i++
		if e.Len == 0 {
			continue
		}
		k, err := data.ReadAt(ctx, int(n.Layer), rest[:min(int64(len(rest)), e.Off+e.Len-at)], e.Addr+at-e.Off)
		done += k
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
