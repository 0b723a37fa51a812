package inflate

// marks is which bytes of the window at a place later output refers to.
type marks struct {
	window [WindowSize]byte
	n      int // the window is window[:n]
	first  int // of the bytes referred to, or n
	used   [WindowSize]bool
}

// Mark notes the place at hand, of which Boundary is true: from now on Marked is
// about it.
func (z *Reader) Mark() {
	if z.marks == nil {
		z.marks = new(marks)
	}
	m := z.marks
	m.n = len(z.Window(m.window[:0]))
	m.first = m.n
	clear(m.used[:])
	z.floor = z.wp
}

// reach notes a reference to the n bytes from out[src] on, and reports whether
// there are such. src is before floor.
func (z *Reader) reach(src, n int) bool {
	if src < z.lo {
		return false
	}
	m := z.marks
	first := m.n - (z.floor - src)
	m.first = min(m.first, first)
	for i := first; i < min(first+n, m.n); i++ {
		m.used[i] = true
	}
	return true
}

// Marked appends the window at the last Mark to dst: cut to what output since
// then refers to, and with zeros for the bytes in it that nothing refers to. It
// is complete, and remains so until the next Mark, once WindowSize bytes have
// been read since, or the member has ended. Before that it is enough for the
// output read so far.
func (z *Reader) Marked(dst []byte) []byte {
	m := z.marks
	if m == nil {
		return dst
	}
	for i, b := range m.window[m.first:m.n] {
		if !m.used[m.first+i] {
			b = 0
		}
		dst = append(dst, b)
	}
	return dst
}
