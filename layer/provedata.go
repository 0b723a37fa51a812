package layer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/peelfs/peel/layer/inflate"
)

// proofBuffer is how much of a file is compared at once, bytes.
const proofBuffer = 256 << 10

// fileRun is a run of a claimed file's data.
type fileRun struct {
	Extent
	file uint32 // row in the claimed Inodes
}

func (r *fileRun) end() int64 { return r.Addr + r.Len }

// data notes where a claimed file's data lies, to be compared when its spans
// are read, and proves that its holes are of zeros.
func (p *proof) data(path string, row uint32, real *Inode) error {
	at := int64(0)
	for _, e := range p.claimed.dataOf(&p.claimed.Inodes[row]) {
		if err := p.zeros(path, real, at, e.Off); err != nil {
			return err
		}
		if at = e.Off + e.Len; e.Len > 0 {
			p.runs = append(p.runs, fileRun{e, row})
		}
	}
	return p.zeros(path, real, at, real.Size)
}

// dataOf returns the runs of a file's data, by offset.
func (x *Index) dataOf(in *Inode) []Extent {
	if in.Extents.Count == 0 {
		return []Extent{{Addr: in.Addr, Len: in.Size}}
	}
	return x.Extents[in.Extents.First:][:in.Extents.Count]
}

// zeros proves that a file's bytes [off, end) are zeros.
func (p *proof) zeros(path string, real *Inode, off, end int64) error {
	for _, e := range p.streamed.dataOf(real) {
		from, to := max(off, e.Off), min(end, e.Off+e.Len)
		for from < to {
			part := p.buffer(to - from)
			if err := p.readTar(part, e.Addr+from-e.Off); err != nil {
				return err
			}
			if i := len(part) - len(bytes.TrimLeft(part, "\x00")); i < len(part) {
				return p.differsAt(path, fmt.Sprintf("byte %d", from+int64(i)), "a hole", part[i])
			}
			from += int64(len(part))
		}
	}
	return nil
}

func (p *proof) buffer(n int64) []byte {
	if p.buf == nil {
		p.buf = make([]byte, proofBuffer)
	}
	return p.buf[:min(n, proofBuffer)]
}

func (p *proof) readTar(b []byte, addr int64) error {
	if n, err := p.tar.ReadAt(b, addr); n < len(b) {
		return fmt.Errorf("the layer's tar at %d: %w", addr, err)
	}
	return nil
}

// spans decodes every span, each once and in their order, and compares with the
// tar what files have of it.
func (p *proof) spans(ctx context.Context, blob Source) (err error) {
	slices.SortFunc(p.runs, func(a, b fileRun) int { return cmp.Compare(a.Addr, b.Addr) })
	in := newBlobReader(p.claimed, blob)
	defer func() { err = errors.Join(err, in.in.close()) }()
	var open []fileRun // those of which this span has some, or the one before had
	next := 0
	for i := range p.claimed.Spans {
		s := &p.claimed.Spans[i]
		data, err := p.span(ctx, in, i)
		if err != nil {
			return err
		}
		for ; next < len(p.runs) && p.runs[next].Addr < s.Addr+s.Len; next++ {
			open = append(open, p.runs[next])
		}
		for k := range open {
			if err := p.compare(&open[k], s, data); err != nil {
				return err
			}
		}
		open = slices.DeleteFunc(open, func(r fileRun) bool { return r.end() <= s.Addr+s.Len })
	}
	return nil
}

// span returns the verified bytes of a span. Those of a span that cannot be
// read by itself are the tar's.
func (p *proof) span(ctx context.Context, in *blobReader, i int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	s := &p.claimed.Spans[i]
	data := in.room(s.Len)
	if !p.claimed.seekable() {
		if err := p.readTar(data, s.Addr); err != nil {
			return nil, err
		}
		return data, p.claimed.verifySpan(i, data)
	}
	if err := in.read(ctx, i, data); err != nil {
		return nil, err
	}
	if !p.claimed.isTar() {
		return data, nil
	}
	if p.claimed.Info.Digests == OfBlob {
		// Readers compare it, so it has to be right where nothing refers to it, too.
		tail := make([]byte, min(s.Addr, inflate.WindowSize))
		if err := p.readTar(tail, s.Addr-int64(len(tail))); err != nil {
			return nil, err
		}
		if err := p.claimed.fits(i, tail); err != nil {
			return nil, err
		}
	}
	for at := int64(0); at < s.Len; at += proofBuffer {
		real := p.buffer(s.Len - at)
		if err := p.readTar(real, s.Addr+at); err != nil {
			return nil, err
		}
		if got := data[at:][:len(real)]; !bytes.Equal(got, real) {
			n := firstDifference(got, real)
			return nil, p.differs(fmt.Sprintf("span %d: byte %d of the tar", i, s.Addr+at+n), got[n], real[n])
		}
	}
	return data, nil
}

// compare compares what a span has of a run with the layer's file.
func (p *proof) compare(r *fileRun, s *Span, data []byte) error {
	file := &p.streamed.Inodes[p.to[r.file]]
	for from, end := max(r.Addr, s.Addr), min(r.end(), s.Addr+s.Len); from < end; {
		off := r.Off + from - r.Addr
		real := p.buffer(end - from)
		if err := p.readFile(real, file, off); err != nil {
			return err
		}
		if got := data[from-s.Addr:][:len(real)]; !bytes.Equal(got, real) {
			n := firstDifference(got, real)
			return p.differsAt(p.claimed.path(r.file, ""), fmt.Sprintf("byte %d", off+n), got[n], real[n])
		}
		from += int64(len(real))
	}
	return nil
}

func firstDifference(a, b []byte) int64 {
	i := 0
	for a[i] == b[i] {
		i++
	}
	return int64(i)
}

// readFile fills b with the bytes at off of a file of the layer.
func (p *proof) readFile(b []byte, in *Inode, off int64) error {
	clear(b)
	runs := p.streamed.dataOf(in)
	first, _ := slices.BinarySearchFunc(runs, off, func(e Extent, off int64) int { return cmp.Compare(e.Off+e.Len, off+1) })
	for _, e := range runs[first:] {
		from, to := max(off, e.Off), min(off+int64(len(b)), e.Off+e.Len)
		if from >= to {
			return nil
		}
		if err := p.readTar(b[from-off:to-off], e.Addr+from-e.Off); err != nil {
			return err
		}
	}
	return nil
}

// blobReader reads the spans of a claimed index one after the other, with one
// request.
type blobReader struct {
	x    *Index
	in   spanReader
	data []byte
}

func newBlobReader(x *Index, src Source) *blobReader {
	r := &blobReader{x: x, in: spanReader{src: src}}
	if n := len(x.Spans); n > 0 {
		r.in.end = x.Spans[n-1].Off + x.Spans[n-1].CLen
	}
	return r
}

// room returns n bytes that are free until the next call.
func (r *blobReader) room(n int64) []byte {
	r.data = slices.Grow(r.data[:0], int(n))[:n]
	return r.data
}

// read decodes span i into dst.
func (r *blobReader) read(ctx context.Context, i int, dst []byte) error {
	s := &r.x.Spans[i]
	if s.CLen > maxCLen {
		return fmt.Errorf("%w: span %d: %w", ErrVerify, i, limit("compressed bytes", s.CLen, maxCLen))
	}
	blob, err := r.in.next(ctx, s)
	if err != nil {
		return spanError(i, err)
	}
	return r.x.decodeSpan(i, blob, dst)
}
