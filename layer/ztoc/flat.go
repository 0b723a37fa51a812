package ztoc

import (
	"math"

	flatbuffers "github.com/google/flatbuffers/go"
)

// flat reads a flatbuffer of foreign origin: unlike flatbuffers.Table, it never
// reads beyond the buffer and never panics. The first fault is kept in err, and
// all that is read after it is zero.
type flat struct {
	buf []byte
	// left is how many bytes of strings may still be copied: a hostile buffer
	// can refer to one long string a million times.
	left int64
	err  error
}

// table is one table of a flat. The zero table has no fields.
type table struct {
	f    *flat
	what string // for messages
	row  int    // likewise, its place in a vector; -1 if it is in none
	pos  int64
	size int64  // bytes of the table, from pos on
	slot []byte // the offsets in the table of its fields, two bytes each
}

// vector is where the elements of a vector are.
type vector struct {
	pos int64
	n   int
}

func (f *flat) fail(format string, args ...any) {
	if f.err == nil {
		f.err = malformed(format, args...)
	}
}

// u32 reads the offset or the length at pos.
func (f *flat) u32(pos int64, what string) int64 {
	if f.err != nil || pos < 0 || pos > int64(len(f.buf))-flatbuffers.SizeUOffsetT {
		f.fail("%s: beyond the end", what)
		return 0
	}
	return int64(flatbuffers.GetUOffsetT(f.buf[pos:]))
}

// root is the table that the buffer begins with.
func (f *flat) root(what string) table {
	return f.table(f.u32(0, what), what, -1)
}

func (f *flat) table(pos int64, what string, row int) table {
	t := table{f: f, what: what, row: row}
	end := int64(len(f.buf))
	if f.err != nil || pos < 0 || pos > end-flatbuffers.SizeSOffsetT {
		t.fail("beyond the end")
		return table{}
	}
	vt := pos - int64(flatbuffers.GetSOffsetT(f.buf[pos:]))
	if vt < 0 || vt > end-2*flatbuffers.SizeVOffsetT {
		t.fail("its field list is beyond the end")
		return table{}
	}
	slots := int64(flatbuffers.GetVOffsetT(f.buf[vt:]))
	size := int64(flatbuffers.GetVOffsetT(f.buf[vt+flatbuffers.SizeVOffsetT:]))
	if slots < 2*flatbuffers.SizeVOffsetT || slots%flatbuffers.SizeVOffsetT != 0 || slots > end-vt ||
		size < flatbuffers.SizeSOffsetT || size > end-pos {
		t.fail("its field list is of a wrong length")
		return table{}
	}
	t.pos, t.size, t.slot = pos, size, f.buf[vt+2*flatbuffers.SizeVOffsetT:vt+slots]
	return t
}

func (t table) fail(format string, args ...any) {
	if t.f == nil {
		return
	}
	if t.row >= 0 {
		t.f.fail("%s %d: "+format, append([]any{t.what, t.row}, args...)...)
		return
	}
	t.f.fail("%s: "+format, append([]any{t.what}, args...)...)
}

// field is where a field of the given size is, or 0 if the table has none,
// which means the field's default.
func (t table) field(slot int, size int64) int64 {
	if 2*slot+2 > len(t.slot) || t.f.err != nil {
		return 0
	}
	off := int64(flatbuffers.GetVOffsetT(t.slot[2*slot:]))
	if off == 0 {
		return 0
	}
	if off < flatbuffers.SizeSOffsetT || off > t.size-size {
		t.fail("field %d is beyond its end", slot)
		return 0
	}
	return t.pos + off
}

func (t table) int8(slot int, otherwise int8) int8 {
	if p := t.field(slot, flatbuffers.SizeInt8); p != 0 {
		return flatbuffers.GetInt8(t.f.buf[p:])
	}
	return otherwise
}

func (t table) int32(slot int) int32 {
	if p := t.field(slot, flatbuffers.SizeInt32); p != 0 {
		return flatbuffers.GetInt32(t.f.buf[p:])
	}
	return 0
}

func (t table) uint32(slot int) uint32 { return uint32(t.int32(slot)) }

func (t table) int64(slot int) int64 {
	if p := t.field(slot, flatbuffers.SizeInt64); p != 0 {
		return flatbuffers.GetInt64(t.f.buf[p:])
	}
	return 0
}

// refers follows the reference in a field. It is 0 if there is no such field.
func (t table) refers(slot int) int64 {
	p := t.field(slot, flatbuffers.SizeUOffsetT)
	if p == 0 {
		return 0
	}
	return p + int64(flatbuffers.GetUOffsetT(t.f.buf[p:]))
}

func (t table) table(slot int, what string) table {
	p := t.refers(slot)
	if p == 0 {
		return table{}
	}
	return t.f.table(p, what, -1)
}

// vector is the vector in a field, of elements of the given size.
func (t table) vector(slot int, size int64) vector {
	p := t.refers(slot)
	if p == 0 {
		return vector{}
	}
	return t.f.vector(p, size, t)
}

func (f *flat) vector(pos, size int64, of table) vector {
	end := int64(len(f.buf))
	if f.err != nil || pos > end-flatbuffers.SizeUOffsetT {
		of.fail("a list is beyond the end")
		return vector{}
	}
	n := int64(flatbuffers.GetUOffsetT(f.buf[pos:]))
	pos += flatbuffers.SizeUOffsetT
	if n > (end-pos)/size || n > math.MaxInt32 {
		of.fail("a list of %d goes beyond the end", n)
		return vector{}
	}
	return vector{pos, int(n)}
}

// element follows the reference that element i of a vector of references is.
func (f *flat) element(v vector, i int) int64 {
	p := v.pos + int64(i)*flatbuffers.SizeUOffsetT
	return p + int64(flatbuffers.GetUOffsetT(f.buf[p:]))
}

// bytes shares memory with the buffer.
func (t table) bytes(slot int) []byte {
	v := t.vector(slot, 1)
	if v.n == 0 {
		return nil
	}
	return t.f.buf[v.pos : v.pos+int64(v.n) : v.pos+int64(v.n)]
}

func (t table) string(slot int) string {
	p := t.refers(slot)
	if p == 0 {
		return ""
	}
	return t.f.string(p, t)
}

// string copies a string, which a NUL follows that does not count.
func (f *flat) string(pos int64, of table) string {
	v := f.vector(pos, 1, of)
	end := v.pos + int64(v.n)
	switch {
	case f.err != nil:
		return ""
	case end >= int64(len(f.buf)) || f.buf[end] != 0:
		of.fail("a string has no end")
		return ""
	case !f.spend(int64(v.n)):
		return ""
	}
	return string(f.buf[v.pos:end])
}

// spend takes n bytes off the allowance.
func (f *flat) spend(n int64) bool {
	if f.left -= n; f.left < 0 {
		f.fail("its strings are longer than itself, many times over")
	}
	return f.err == nil
}
