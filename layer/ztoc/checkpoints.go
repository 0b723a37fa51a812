package ztoc

import (
	"encoding/binary"

	flatbuffers "github.com/google/flatbuffers/go"
)

// Checkpoints of a gzip layer, all numbers little endian:
//
//	int32  number of checkpoints, one for each span
//	int64  span size
//	then for each checkpoint
//	int64  compressed offset of the first whole byte
//	int64  uncompressed offset
//	uint8  how many bits of the byte before belong to the span, the highest
//	32768  window
//
// Layout 1 leaves out the first checkpoint and supposes it at byte 10. Layout 2
// has it. Only the length tells which it is.
const (
	pointsHeader = 4 + 8
	pointHeader  = 8 + 8 + 1
	pointSize    = pointHeader + WindowSize

	// gzipHeader is the length in bytes of a gzip header without a name.
	gzipHeader = 10
)

// The slots of the checkpoints of a tar, a flatbuffer within the flatbuffer.
const (
	gridVersion = iota
	gridSpanSize
	gridSize
	gridSlots
)

// gridLayout is the version of such checkpoints.
const gridLayout = 2

// readCheckpoints makes n spans from the checkpoints of a gzip layer.
func (t *TOC) readCheckpoints(p []byte, n int) error {
	if len(p) < pointsHeader {
		return malformed("checkpoints: %d bytes", len(p))
	}
	if have := int32(binary.LittleEndian.Uint32(p)); int64(have) != int64(n) {
		return malformed("checkpoints: %d of them for %d spans", have, n)
	}
	t.SpanSize = int64(binary.LittleEndian.Uint64(p[4:]))
	p = p[pointsHeader:]
	t.Spans = make([]Span, 0, n)
	switch len(p) {
	case n * pointSize:
	case (n - 1) * pointSize:
		t.Spans = append(t.Spans, Span{Off: gzipHeader})
	default:
		return malformed("checkpoints: %d bytes for %d spans", len(p), n)
	}
	for ; len(p) > 0; p = p[pointSize:] {
		s := Span{
			Off:  int64(binary.LittleEndian.Uint64(p)),
			Out:  int64(binary.LittleEndian.Uint64(p[8:])),
			Bits: p[16],
		}
		if s.Bits != 0 {
			s.Off--
		}
		if s.Out != 0 {
			s.Window = p[pointHeader:pointSize:pointSize]
		}
		t.Spans = append(t.Spans, s)
	}
	t.measure()
	return nil
}

// measure sets the lengths of the spans of a gzip layer from where they begin.
func (t *TOC) measure() {
	end, outEnd := t.CompressedSize, t.UncompressedSize
	for i := len(t.Spans) - 1; i >= 0; i-- {
		s := &t.Spans[i]
		s.CLen, s.Len = end-s.Off, outEnd-s.Out
		end, outEnd = s.whole(), s.Out
	}
}

// whole is the offset of the first byte that is the span's alone.
func (s *Span) whole() int64 {
	if s.Bits != 0 {
		return s.Off + 1
	}
	return s.Off
}

// appendCheckpoints writes the checkpoints of a gzip layer in layout 2.
func (t *TOC) appendCheckpoints(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, uint32(len(t.Spans)))
	dst = le.AppendUint64(dst, uint64(t.SpanSize))
	var none [WindowSize]byte
	for i := range t.Spans {
		s := &t.Spans[i]
		dst = le.AppendUint64(dst, uint64(s.whole()))
		dst = le.AppendUint64(dst, uint64(s.Out))
		dst = append(dst, s.Bits)
		dst = append(dst, none[len(s.Window):]...)
		dst = append(dst, s.Window...)
	}
	return dst
}

// readGrid makes n spans from the checkpoints of a tar.
func (t *TOC) readGrid(p []byte, n int) error {
	f := &flat{buf: p}
	g := f.root("checkpoints")
	t.SpanSize = g.int64(gridSpanSize)
	size := g.int64(gridSize)
	switch {
	case f.err != nil:
		return f.err
	case size != t.CompressedSize:
		return malformed("checkpoints: of a tar of %d bytes, not of %d", size, t.CompressedSize)
	case size <= 0 || t.SpanSize <= 0 || (size-1)/t.SpanSize != int64(n)-1:
		return malformed("checkpoints: %d spans of %d bytes for a tar of %d", n, t.SpanSize, size)
	}
	t.grid()
	return nil
}

// grid cuts a tar into spans of the span size.
func (t *TOC) grid() {
	t.Spans = nil
	for off := int64(0); off < t.CompressedSize; off += t.SpanSize {
		n := min(t.SpanSize, t.CompressedSize-off)
		t.Spans = append(t.Spans, Span{Off: off, CLen: n, Out: off, Len: n})
	}
}

func (t *TOC) encodeGrid() []byte {
	b := flatbuffers.NewBuilder(0)
	b.StartObject(gridSlots)
	b.PrependInt32Slot(gridVersion, gridLayout, 0)
	b.PrependInt64Slot(gridSpanSize, t.SpanSize, 0)
	b.PrependInt64Slot(gridSize, t.CompressedSize, 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes()
}
