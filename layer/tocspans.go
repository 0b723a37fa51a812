package layer

import (
	"cmp"
	"slices"

	"github.com/peelfs/peel/internal/flat"
)

// index cuts the blob into spans, gives every chunk an address and lays out
// the index. Addresses follow the order of the blob, which is the table's
// order unless the table was shuffled, and are packed end to end.
func (t *toc) index(info InfoInput) (*Index, error) {
	order := make([]uint32, len(t.pieces))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortStableFunc(order, func(a, b uint32) int {
		p, q := &t.pieces[a], &t.pieces[b]
		return cmp.Or(cmp.Compare(p.off, q.off), cmp.Compare(p.inner, q.inner))
	})
	c := cutter{marks: t.sortedMarks()}
	for _, i := range order {
		if err := c.add(&t.pieces[i]); err != nil {
			return nil, err
		}
	}
	for _, f := range t.files {
		if err := t.b.place(f.row, extents(t.pieces[f.first:][:f.n])); err != nil {
			return nil, err
		}
	}
	info.AddrSize, info.Landmark = c.addr, t.landmark
	return t.b.Index(info, Cut{Spans: c.spans, Chunks: c.chunks})
}

// extents joins neighbouring pieces of a file.
func extents(pieces []piece) []Extent {
	joined := make([]Extent, 0, 1)
	for _, p := range pieces {
		if n := len(joined) - 1; n >= 0 && joined[n].Off+joined[n].Len == p.file && joined[n].Addr+joined[n].Len == p.addr {
			joined[n].Len += p.len
			continue
		}
		joined = append(joined, Extent{Off: p.file, Addr: p.addr, Len: p.len})
	}
	return joined
}

// place says where the data of an inode lies that was added without.
func (b *Builder) place(row uint32, extents []Extent) error {
	in := &b.inodes[row]
	b.extents -= len(in.extents)
	in.extents = nil
	if err := b.setData(in, &Header{Size: in.Size, Extents: extents}); err != nil {
		return malformed("%w", err)
	}
	return nil
}

// cutter makes spans of pieces that come in the order of the blob.
type cutter struct {
	marks  []int64
	addr   int64 // length of the address space so far
	spans  []Span
	chunks []Chunk
}

func (c *cutter) add(p *piece) error {
	if n := len(c.spans) - 1; n >= 0 && c.spans[n].Off == p.off {
		return c.join(&c.spans[n], p)
	}
	end := c.next(p.off)
	if p.end != 0 && p.end < end {
		end = p.end
	}
	if end <= p.off {
		return malformed("chunk at %d ends at %d", p.off, end)
	}
	c.spans = append(c.spans, Span{Addr: c.addr, Off: p.off, CLen: end - p.off, Chunks: flat.Range{First: uint32(len(c.chunks))}})
	c.append(&c.spans[len(c.spans)-1], p)
	return nil
}

// join adds another piece to the span whose compressed bytes hold it.
func (c *cutter) join(s *Span, p *piece) error {
	last := &c.chunks[len(c.chunks)-1]
	if int64(last.Inner) == p.inner && int64(last.Len) == p.len && last.SHA256 == p.sum {
		p.addr = last.Addr // one payload that several files have
		return nil
	}
	if p.inner < int64(last.Inner)+int64(last.Len) {
		return malformed("chunks at %d overlap: inner offsets [%d, +%d) and %d", p.off, last.Inner, last.Len, p.inner)
	}
	s.CLen = c.next(p.off) - p.off
	c.append(s, p)
	return nil
}

// next returns the first mark after off; the payload's end is one.
func (c *cutter) next(off int64) int64 {
	i, _ := slices.BinarySearch(c.marks, off+1)
	return c.marks[i]
}

func (c *cutter) append(s *Span, p *piece) {
	p.addr = c.addr
	c.chunks = append(c.chunks, Chunk{Addr: c.addr, Len: uint32(p.len), Inner: uint32(p.inner), SHA256: p.sum})
	s.Len += p.len
	s.Chunks.Count++
	c.addr += p.len
}
