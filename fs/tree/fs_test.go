package tree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/layer"
)

func TestFS(t *testing.T) {
	t.Parallel()
	tr := mergeAll(t,
		[]layer.Header{
			dir("bin", 0o755), file("bin/sh", 100, 5000), hardlink("bin/bash", "bin/sh"), symlink("sh", "/bin/sh"), symlink("usr/bin", "../bin"),
			file("etc/empty", 0, 0), dir("var/none", 0o1777),
		},
		[]layer.Header{file("etc/more", 7, 3), file("etc/gone", 0, 0)},
		[]layer.Header{whiteout("etc", "gone")})
	if err := fstest.TestFS(tr.FS(t.Context(), pattern{}), "bin/sh", "bin/bash", "sh", "etc/empty", "etc/more", "var/none"); err != nil {
		t.Error(err)
	}
	sub, err := fs.Sub(tr.FS(t.Context(), pattern{}), "usr/bin")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := fs.Glob(sub, "*sh"); err != nil || len(m) != 2 {
		t.Errorf("%v, %v", m, err)
	}
}

func TestFSNames(t *testing.T) {
	t.Parallel()
	tr := mergeAll(t, []layer.Header{file("d\xff/\xfe", 3, 4), symlink("l", "d\xff")})
	fsys := tr.FS(t.Context(), pattern{})
	want := []byte{patternByte(0, 3), patternByte(0, 4), patternByte(0, 5), patternByte(0, 6)}
	for _, name := range []string{"d\xff/\xfe", "l/\xfe"} {
		got, err := fs.ReadFile(fsys, name)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%q: %v\n%s", name, err, d)
		}
	}
	for _, name := range []string{"", "/", "/l", "./l", "l/", "l//x", "..", "../l", "l/..", "l/."} {
		if _, err := fsys.Stat(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Stat(%q): %v", name, err)
		}
	}
}

func TestFSInfo(t *testing.T) {
	t.Parallel()
	h := file("f", 0, 10)
	h.Mode, h.MtimeSec, h.MtimeNsec, h.UID = typeFile|0o6751, -2, 5e8, 1000
	tr := mergeAll(t, []layer.Header{
		h, symlink("l", "f"), dir("t", 0o1777),
		{Name: "p", Mode: typeFIFO | 0o600},
		{Name: "c", Mode: typeChar},
		{Name: "b", Mode: typeBlock},
	})
	fsys := tr.FS(t.Context(), pattern{})
	for name, want := range map[string]fs.FileMode{
		"f": fs.ModeSetuid | fs.ModeSetgid | 0o751, "l": fs.ModeSymlink | 0o777, "t": fs.ModeDir | fs.ModeSticky | 0o777,
		"p": fs.ModeNamedPipe | 0o600, "c": fs.ModeDevice | fs.ModeCharDevice, "b": fs.ModeDevice,
	} {
		if i, err := fsys.Lstat(name); err != nil || i.Mode() != want || i.Name() != name {
			t.Errorf("%s: %v, %v; want %v", name, i, err, want)
		}
	}
	i, err := fsys.Stat("l")
	if err != nil {
		t.Fatal(err)
	}
	n, ok := i.Sys().(*Inode)
	if !ok || n.UID != 1000 || i.Size() != 10 || !i.ModTime().Equal(time.Unix(-2, 5e8)) {
		t.Errorf("%v, %+v", i, n)
	}
	if target, err := fsys.ReadLink("l"); err != nil || target != "f" {
		t.Errorf("%q, %v", target, err)
	}
}

func TestFSErrors(t *testing.T) {
	t.Parallel()
	huge := file("huge", 0, maxReadFile+1)
	huge.Extents = []layer.Extent{{Off: 0, Addr: 0, Len: 1}}
	tr := mergeAll(t, []layer.Header{file("f", 0, 10), symlink("gone", "none"), symlink("loop", "loop"), dir("d", 0o755), huge, {Name: "p", Mode: typeFIFO}})
	fsys := tr.FS(t.Context(), pattern{})
	failing := tr.FS(t.Context(), broken(4))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	read := func(fsys fs.FS, name string) error { _, err := fs.ReadFile(fsys, name); return err }
	for _, tc := range []struct {
		name string
		err  error
		want error
	}{
		{"missing", read(fsys, "none"), fs.ErrNotExist},
		{"dangling", read(fsys, "gone"), ErrNotExist},
		{"loop", read(fsys, "loop"), ErrLoop},
		{"below a file", read(fsys, "f/x"), ErrNotDir},
		{"directory", read(fsys, "d"), errIsDir},
		{"fifo", read(fsys, "p"), errInvalid},
		{"too large", read(fsys, "huge"), errInvalid},
		{"data", read(failing, "f"), errBroken},
		{"context", read(tr.FS(ended, pattern{}), "f"), context.Canceled},
		{"list a file", func() error { _, err := fsys.ReadDir("f"); return err }(), ErrNotDir},
		{"list nothing", func() error { _, err := fsys.ReadDir("none"); return err }(), ErrNotExist},
		{"target of a file", func() error { _, err := fsys.ReadLink("f"); return err }(), errInvalid},
		{"target of nothing", func() error { _, err := fsys.ReadLink("none"); return err }(), ErrNotExist},
		{"open nothing", func() error { _, err := fsys.Open("none"); return err }(), ErrNotExist},
	} {
		var p *fs.PathError
		if !errors.Is(tc.err, tc.want) || !errors.As(tc.err, &p) {
			t.Errorf("%s: %v, want *fs.PathError of %v", tc.name, tc.err, tc.want)
		}
	}
}

func TestOpenFile(t *testing.T) {
	t.Parallel()
	tr := mergeAll(t, []layer.Header{file("f", 20, 10), {Name: "p", Mode: typeFIFO}, dir("d", 0o755)})
	fsys := tr.FS(t.Context(), pattern{})
	opened, err := fsys.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	f := opened.(interface {
		io.ReadSeeker
		io.ReaderAt
		fs.File
	})
	if _, err := f.Seek(-3, io.SeekEnd); err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(f)
	if d := cmp.Diff([]byte{patternByte(0, 27), patternByte(0, 28), patternByte(0, 29)}, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	p := make([]byte, 4)
	if n, err := f.ReadAt(p, 8); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt past the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(p, 6); n != 4 || err != nil {
		t.Errorf("ReadAt up to the end: %d, %v", n, err)
	}
	if _, err := f.Seek(-1, io.SeekStart); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Seek before the start: %v", err)
	}
	if at, err := f.Seek(2, io.SeekCurrent); at != 12 || err != nil {
		t.Errorf("Seek: %d, %v", at, err)
	}
	if n, err := f.Read(p); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read past the end: %d, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	_, statErr := f.Stat()
	_, readErr := f.Read(p)
	_, seekErr := f.Seek(0, io.SeekStart)
	for _, err := range []error{statErr, readErr, seekErr, f.Close()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	for _, name := range []string{"p", "d"} {
		f, err := fsys.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(p); err == nil {
			t.Errorf("%s can be read", name)
		}
	}
}
