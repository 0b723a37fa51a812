package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestStoreReplaced(t *testing.T) {
	t.Parallel()
	l := newLayout(10, 10000)
	small := layout{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100}
	for _, tt := range []struct {
		name   string
		next   layout
		damage func(t *testing.T, dir string)
	}{
		{"other size", small, nil},
		{"other size after a reboot", small, func(t *testing.T, dir string) { overwrite("have", 32, "another boot")(t, dir) }},
		{"other span count", append(layout{0}, l[2:]...), nil},
		{"have cut", l, cut("have", 100)},
		{"have empty", l, cut("have", 0)},
		{"have overwritten", l, overwrite("have", 0, "not a bitmap of ours")},
		{"have of version 0", l, overwrite("have", 0, "peelhave\x00")},
		{"have removed", l, remove("have")},
		{"data removed", l, remove("data")},
		{"data cut in the same boot", l, cut("data", 100)},
		{"folder removed", l, remove(".")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t)
			old := openStore(t, c, l)
			for span := range l.spans() {
				if err := l.put(old, span); err != nil {
					t.Fatal(err)
				}
			}
			dir, err := c.layerDir(testKey())
			if err != nil {
				t.Fatal(err)
			}
			if tt.damage != nil {
				closeStore(t, old)
				tt.damage(t, dir)
			}
			s := openStore(t, c, tt.next)
			if s.Present() != 0 {
				t.Errorf("%d spans are present", s.Present())
			}
			if err := tt.next.put(s, 2); err != nil {
				t.Fatal(err)
			}
			if p, ok, err := tt.next.read(s, 2, 1); !ok || err != nil || !bytes.Equal(p, tt.next.bytes(2, 1)) {
				t.Errorf("new store: %v, %v", ok, err)
			}
			if tt.damage != nil {
				return
			}
			if p, ok, err := l.read(old, 0, 10); !ok || err != nil || !bytes.Equal(p, l.bytes(0, 10)) {
				t.Errorf("old store: %v, %v", ok, err)
			}
		})
	}
}

func cut(name string, size int64) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.RemoveAll(filepath.Clean(filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
}

// overwrite replaces bytes of a file.
func overwrite(name string, off int64, with string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte(with), off)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoreAfterReboot(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(70, 1000)
	s := openStore(t, c, l)
	for span := range 69 {
		if err := l.put(s, span); err != nil {
			t.Fatal(err)
		}
	}
	s.have.present[1] |= 1 << 63 // a bit that stands for no span
	closeStore(t, s)
	dir, err := c.layerDir(testKey())
	if err != nil {
		t.Fatal(err)
	}
	cut("data", l[68])(t, dir) // the last span's bytes did not get to the disk

	after := &Cache{dir: c.dir, boot: bootID{1, 2}}
	s = openStore(t, after, l)
	if s.Present() != 69 {
		t.Errorf("%d spans are present", s.Present())
	}
	for span := range l.spans() {
		if _, ok, err := l.read(s, span, 1); ok || err != nil || s.Has(span) {
			t.Errorf("span %d is trusted: %v", span, err)
		}
		p := make([]byte, l[span+1]-l[span])
		ok, err := s.Recheck(span, l[span], p)
		if ok != (span < 69) || err != nil {
			t.Errorf("Recheck(%d): %v, %v", span, ok, err)
		}
		if ok && bytes.Equal(p, l.bytes(span, 1)) != (span < 68) {
			t.Errorf("span %d: wrong bytes", span)
		}
		if span < 68 {
			s.Confirm(span)
		}
	}
	s.Confirm(69) // was never there
	if s.Has(68) || s.Has(69) {
		t.Error("spans that were not confirmed are trusted")
	}
	if err := l.put(s, 68); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{s, openStore(t, after, l)} {
		if p, ok, err := l.read(s, 0, 69); !ok || err != nil || !bytes.Equal(p, l.bytes(0, 69)) {
			t.Errorf("after confirmation: %v, %v", ok, err)
		}
	}
}

// Where the system does not tell one boot from another, none is trusted.
func TestStoreUnknownBoot(t *testing.T) {
	t.Parallel()
	c := &Cache{dir: openCache(t).dir}
	l := newLayout(10, 1000)
	if err := l.put(openStore(t, c, l), 4); err != nil {
		t.Fatal(err)
	}
	if s := openStore(t, c, l); s.Has(4) || s.Present() != 1 {
		t.Errorf("trusted: %v; present: %d", s.Has(4), s.Present())
	}
}

// A copy of a folder in use may hold newer bits than data.
func TestStoreCopied(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(10, 1000)
	if err := l.put(openStore(t, c, l), 4); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(c.Dir())); err != nil {
		t.Fatal(err)
	}
	other, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, other, l)
	if s.Has(4) || s.Present() != 1 {
		t.Errorf("trusted: %v; present: %d", s.Has(4), s.Present())
	}
}
