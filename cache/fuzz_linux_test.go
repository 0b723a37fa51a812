package cache

import (
	"bytes"
	"path/filepath"
	"testing"
)

// model is what a store should hold.
type model struct {
	l      layout
	stored map[int]bool // absent: not there; false: in doubt; true: trusted
	wrong  map[int]bool // spans whose bytes a crash has lost
}

// world is a store under test, opened twice, and its model.
type world struct {
	t *testing.T
	c *Cache
	s [2]*Store
	model
}

func (w *world) open() {
	w.t.Helper()
	for i := range w.s {
		s, err := w.c.Store(testKey(), w.l.size(), w.l.spans())
		if err != nil {
			w.t.Fatal(err)
		}
		w.s[i] = s
	}
}

func (w *world) close() {
	w.t.Helper()
	for _, s := range w.s {
		closeStore(w.t, s)
	}
}

func (w *world) path(name string) string {
	dir, err := w.c.layerDir(testKey())
	if err != nil {
		w.t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// The operations; each byte pair of a fuzz input is one, on some span.
func operations() []func(w *world, s *Store, span int) {
	return []func(w *world, s *Store, span int){put, read, read, read, recheck, recheck, reopen, reboot, crash, damage, evict}
}

func put(w *world, s *Store, span int) {
	if err := w.l.put(s, span); err != nil {
		w.t.Fatal(err)
	}
	w.stored[span] = true
	delete(w.wrong, span)
}

func read(w *world, s *Store, span int) {
	n := min(1+span%5, w.l.spans()-span)
	want := true
	for i := range n {
		want = want && w.stored[span+i]
		if s.Has(span+i) != w.stored[span+i] {
			w.t.Fatalf("Has(%d) is not %v", span+i, w.stored[span+i])
		}
	}
	p, ok, err := w.l.read(s, span, n)
	if ok != want || err != nil || ok && !bytes.Equal(p, w.l.bytes(span, n)) {
		w.t.Fatalf("spans [%d, +%d): %v, %v, want %v", span, n, ok, err, want)
	}
	if s.Present() != len(w.stored) {
		w.t.Fatalf("%d present, want %d", s.Present(), len(w.stored))
	}
}

func recheck(w *world, s *Store, span int) {
	p := make([]byte, w.l[span+1]-w.l[span])
	ok, err := s.Recheck(span, w.l[span], p)
	if _, want := w.stored[span]; ok != want || err != nil {
		w.t.Fatalf("Recheck(%d): %v, %v, want %v", span, ok, err, want)
	}
	if ok && bytes.Equal(p, w.l.bytes(span, 1)) == w.wrong[span] {
		w.t.Fatalf("Recheck(%d): lost is %v", span, w.wrong[span])
	}
	if ok && w.wrong[span] {
		put(w, s, span)
		return
	}
	s.Confirm(span)
	if ok {
		w.stored[span] = true
	}
}

func reopen(w *world, _ *Store, _ int) {
	w.close()
	w.open()
}

func reboot(w *world, _ *Store, _ int) {
	w.close()
	w.c.boot[0]++
	for span := range w.stored {
		w.stored[span] = false
	}
	w.open()
}

// crash loses the end of the data and the boot.
func crash(w *world, _ *Store, span int) {
	cut("data", w.l[span])(w.t, filepath.Dir(w.path("data")))
	for i := span; i < w.l.spans(); i++ {
		w.wrong[i] = true
	}
	reboot(w, nil, 0)
}

// damage makes have unreadable.
func damage(w *world, _ *Store, span int) {
	w.close()
	if span%2 == 0 {
		overwrite("have", 0, "x")(w.t, filepath.Dir(w.path("have")))
	} else {
		cut("have", int64(span))(w.t, filepath.Dir(w.path("have")))
	}
	clear(w.stored)
	clear(w.wrong)
	w.open()
}

func evict(w *world, s *Store, span int) {
	if err := w.l.evict(s, span); err != nil {
		w.t.Fatal(err)
	}
	delete(w.stored, span)
	delete(w.wrong, span)
}

func FuzzStore(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 6, 0, 1, 1})
	f.Add([]byte{0, 1, 7, 0, 1, 1, 4, 1, 1, 1})
	f.Add([]byte{0, 1, 0, 65, 8, 40, 4, 65, 4, 1, 1, 65, 1, 1})
	f.Add([]byte{0, 63, 0, 64, 1, 63, 10, 64, 1, 63, 9, 3, 1, 63})
	f.Add([]byte{0, 3, 7, 0, 10, 3, 4, 3, 1, 3, 0, 3, 9, 2, 4, 3})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 400 {
			return
		}
		w := &world{t: t, c: openCache(t), model: model{l: newLayout(70, 100), stored: map[int]bool{}, wrong: map[int]bool{}}}
		w.open()
		defer w.close()
		all := operations()
		for i := 0; i+1 < len(program); i += 2 {
			all[int(program[i])%len(all)](w, w.s[i/2%2], int(program[i+1])%w.l.spans())
		}
	})
}
