package tree

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/layer"
)

// paths returns the paths that show, directories with a slash, files with the
// layer they come from.
func paths(t *Tree) []string {
	var out []string
	var visit func(row uint32, p string)
	visit = func(row uint32, p string) {
		if n := t.Inodes[row]; !isDir(n.Mode) {
			out = append(out, fmt.Sprintf("%s=%d", p, n.Layer))
			return
		}
		if p != "" {
			out = append(out, p+"/")
		}
		for _, e := range t.Children(row) {
			visit(e.Inode, strings.TrimPrefix(p+"/"+t.Name(e), "/"))
		}
	}
	visit(0, "")
	return out
}

func TestMerge(t *testing.T) {
	t.Parallel()
	type headers = []layer.Header
	for _, tc := range []struct {
		name   string
		layers []headers
		want   []string
	}{
		{"no layers", nil, nil},
		{"empty layers", []headers{{}, {}}, nil},
		{"later file wins", []headers{{file("a", 1, 1)}, {file("a", 2, 1)}}, []string{"a=1"}},
		{
			"directories unite",
			[]headers{{file("d/a", 0, 0), file("d/c", 0, 0)}, {file("d/b", 0, 0), file("d/c", 0, 0)}},
			[]string{"d/", "d/a=0", "d/b=1", "d/c=1"},
		},
		{"whiteout hides a file", []headers{{file("d/a", 0, 0), file("d/b", 0, 0)}, {whiteout("d", "a")}}, []string{"d/", "d/b=0"}},
		{"whiteout hides a tree", []headers{{file("d/e/f", 0, 0)}, {whiteout(".", "d")}}, nil},
		{"whiteout of nothing", []headers{{file("a", 0, 0)}, {whiteout(".", "b")}}, []string{"a=0"}},
		{"whiteout does not reach its own layer", []headers{{file("d/a", 0, 0)}, {file("d/a", 0, 0), whiteout("d", "a")}}, []string{"d/", "d/a=1"}},
		{
			"whiteout beside its directory",
			[]headers{{file("d/a", 0, 0)}, {dir("d", 0o700), file("d/b", 0, 0), whiteout(".", "d")}},
			[]string{"d/", "d/b=1"},
		},
		{"whiteout then reborn", []headers{{file("d/a", 0, 0)}, {whiteout(".", "d")}, {file("d/b", 0, 0)}}, []string{"d/", "d/b=2"}},
		{"whiteout does not reach above", []headers{{file("a", 0, 0)}, {whiteout(".", "a")}, {file("a", 0, 0)}}, []string{"a=2"}},
		{
			"opaque before and after",
			[]headers{{file("d/a", 0, 0), file("d/s/x", 0, 0)}, {file("d/b", 0, 0), opaque("d"), file("d/s/y", 0, 0)}},
			[]string{"d/", "d/b=1", "d/s/", "d/s/y=1"},
		},
		{"opaque root", []headers{{file("a", 0, 0), file("d/b", 0, 0)}, {opaque("."), file("c", 0, 0)}}, []string{"c=1"}},
		{"opaque of nothing", []headers{{}, {opaque("d")}}, []string{"d/"}},
		{
			"opaque below an upper layer",
			[]headers{{file("d/a", 0, 0)}, {opaque("d"), file("d/b", 0, 0)}, {file("d/c", 0, 0)}},
			[]string{"d/", "d/b=1", "d/c=2"},
		},
		{"directory becomes file", []headers{{file("d/a", 0, 0)}, {file("d", 0, 0)}}, []string{"d=1"}},
		{"file becomes directory", []headers{{file("d", 0, 0)}, {file("d/a", 0, 0)}}, []string{"d/", "d/a=1"}},
		{"directory, file, directory", []headers{{file("d/a", 0, 0)}, {file("d", 0, 0)}, {file("d/b", 0, 0)}}, []string{"d/", "d/b=2"}},
		{
			"described directory over a symlink to one",
			[]headers{{file("usr/lib/a", 0, 0), symlink("lib", "usr/lib")}, {dir("lib", 0o755), file("lib/b", 0, 0)}},
			[]string{"lib/", "lib/b=1", "usr/", "usr/lib/", "usr/lib/a=0"},
		},
		{"symlink over a directory", []headers{{file("lib/a", 0, 0)}, {symlink("lib", "usr/lib")}}, []string{"lib=1"}},
		{
			"whiteout and file meet in several layers",
			[]headers{{file("d/a", 0, 0)}, {whiteout("d", "a"), file("d/b", 0, 0)}, {file("d/a", 0, 0), whiteout("d", "b")}},
			[]string{"d/", "d/a=2"},
		},
		{"names are bytes", []headers{{file("\xff", 0, 0), file("é", 0, 0)}, {whiteout(".", "\xff"), file("\xfe", 0, 0)}}, []string{"é=0", "\xfe=1"}},
		{"same layer twice", []headers{{file("a", 0, 0)}, {file("a", 0, 0)}}, []string{"a=1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := mergeAll(t, tc.layers...)
			if d := cmp.Diff(tc.want, paths(tr)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			checkTree(t, tr)
		})
	}
}

func TestMergeAttributes(t *testing.T) {
	t.Parallel()
	type headers = []layer.Header
	for _, tc := range []struct {
		name     string
		layers   []headers
		path     string
		perm     uint32
		implicit bool
	}{
		{"nothing describes the root", []headers{{file("a", 0, 0)}}, "/", 0o755, true},
		{"scratch", nil, "/", 0o755, true},
		{"root of a lower layer", []headers{{dir("./", 0o711)}, {file("a", 0, 0)}}, "/", 0o711, false},
		{"topmost root", []headers{{dir(".", 0o711)}, {dir("/", 0o1777)}, {}}, "/", 0o1777, false},
		{"opaque root of a layer that does not describe it", []headers{{dir(".", 0o711)}, {opaque(".")}}, "/", 0o711, false},
		{"upper replaces", []headers{{dir("d", 0o700)}, {dir("d", 0o750)}}, "/d", 0o750, false},
		{"implicit leaves the lower's", []headers{{dir("d", 0o700)}, {file("d/a", 0, 0)}, {file("d/b", 0, 0)}}, "/d", 0o700, false},
		{"implicit below described", []headers{{file("d/a", 0, 0)}, {dir("d", 0o700)}}, "/d", 0o700, false},
		{"implicit and opaque leaves the lower's", []headers{{dir("d", 0o700)}, {opaque("d")}}, "/d", 0o700, false},
		{"opaque and described", []headers{{dir("d", 0o700)}, {dir("d", 0o750), opaque("d")}}, "/d", 0o750, false},
		{"not past a file", []headers{{dir("d", 0o700)}, {file("d", 0, 0)}, {file("d/a", 0, 0)}}, "/d", 0o755, true},
		{"not past a whiteout", []headers{{dir("d", 0o700)}, {whiteout(".", "d")}, {file("d/a", 0, 0)}}, "/d", 0o755, true},
		{"not past an opaque parent", []headers{{dir("d/e", 0o700)}, {opaque("d"), file("d/e/a", 0, 0)}}, "/d/e", 0o755, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := mergeAll(t, tc.layers...)
			row, err := tr.Walk(tc.path)
			if err != nil {
				t.Fatal(err)
			}
			n := tr.Inodes[row]
			if n.Mode != typeDir|tc.perm || n.Flags&layer.Implicit != 0 != tc.implicit || n.Flags&layer.Opaque != 0 {
				t.Errorf("mode %o, flags %d; want %o, implicit %v", n.Mode, n.Flags, tc.perm, tc.implicit)
			}
		})
	}
}

func TestMergeHardLinks(t *testing.T) {
	t.Parallel()
	type headers = []layer.Header
	for _, tc := range []struct {
		name   string
		layers []headers
		shared []string // names of one inode that comes from layer 0 at address 7
		nlink  uint32
	}{
		{"in one layer", []headers{{file("a", 7, 1), hardlink("d/b", "a")}}, []string{"/a", "/d/b"}, 2},
		{"to a lower layer", []headers{{file("d/a", 7, 1)}, {hardlink("b", "d/a")}}, []string{"/d/a", "/b"}, 2},
		{"a chain of layers", []headers{{file("a", 7, 1)}, {hardlink("b", "a")}, {hardlink("c", "b")}}, []string{"/a", "/b", "/c"}, 3},
		{"target hidden by its own layer", []headers{{file("a", 7, 1)}, {hardlink("b", "a"), whiteout(".", "a")}}, []string{"/b"}, 1},
		{"target hidden above", []headers{{file("a", 7, 1)}, {hardlink("b", "a")}, {whiteout(".", "a")}}, []string{"/b"}, 1},
		{"target replaced above", []headers{{file("a", 7, 1)}, {hardlink("b", "a")}, {file("a", 9, 1)}}, []string{"/b"}, 1},
		{"past a layer that touches the directory", []headers{{file("d/a", 7, 1)}, {file("d/x", 1, 1)}, {hardlink("b", "d/a")}}, []string{"/d/a", "/b"}, 2},
		{"over the name it replaces", []headers{{file("a", 7, 1), file("b", 3, 1)}, {hardlink("b", "a")}}, []string{"/a", "/b"}, 2},
		{"through a symlink", []headers{{file("d/a", 7, 1), symlink("s", "d")}, {hardlink("b", "s/a")}}, []string{"/d/a", "/b"}, 2},
		{"through symlinks of several layers", []headers{{file("d/a", 7, 1), symlink("s", "/e")}, {symlink("e", "../d")}, {hardlink("b", "s/a")}}, []string{"/d/a", "/b"}, 2},
		{"through a symlink that its own layer hides", []headers{{file("d/a", 7, 1), symlink("s", "d")}, {hardlink("b", "s/a"), whiteout(".", "s"), whiteout(".", "d")}}, []string{"/b"}, 1},
		{"behind a symlink", []headers{{file("d/a", 7, 1), symlink("s", "d")}, {hardlink("s/b", "d/a")}}, []string{"/d/a", "/d/b"}, 2},
		{"a name of it is hidden", []headers{{file("a", 7, 1), hardlink("b", "a"), hardlink("c", "a")}, {whiteout(".", "b")}}, []string{"/a", "/c"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := mergeAll(t, tc.layers...)
			first, err := tr.Walk(tc.shared[0])
			if err != nil {
				t.Fatal(err)
			}
			if n := tr.Inodes[first]; n.Nlink != tc.nlink || n.Layer != 0 || n.Addr != 7 {
				t.Errorf("nlink %d, layer %d, address %d", n.Nlink, n.Layer, n.Addr)
			}
			for _, p := range tc.shared {
				if row, err := tr.Walk(p); err != nil || row != first {
					t.Errorf("%s has row %d, %v; want %d", p, row, err, first)
				}
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	type headers = []layer.Header
	for _, tc := range []struct {
		name   string
		layers []headers
		want   string
	}{
		{"link to nothing", []headers{{file("a", 0, 0)}, {hardlink("d/e/b", "x/y")}}, `d/e/b: malformed image: hard link to "x/y": no lower layer has it`},
		{"link in the lowest layer", []headers{{hardlink("b", "a")}}, `b: malformed image: hard link to "a": no lower layer has it`},
		{"link to a directory", []headers{{dir("a", 0)}, {hardlink("b", "a")}}, `hard link to "a": it is a directory`},
		{"link below a file", []headers{{file("a", 0, 0)}, {hardlink("b", "a/c")}}, `hard link to "a/c": no lower layer has it`},
		{"link to what was hidden before", []headers{{file("a", 0, 0)}, {whiteout(".", "a")}, {hardlink("b", "a")}}, `hard link to "a": no lower layer has it`},
		{"link that an upper layer hides", []headers{{hardlink("b", "a")}, {whiteout(".", "b")}}, `hard link to "a": no lower layer has it`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Merge(indexes(t, tc.layers...))
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "layer sha256:") {
				t.Errorf("error %v, want ErrMalformed with %q", err, tc.want)
			}
		})
	}
}

// Rows are node ids of mounts: they are part of the file format.
func TestMergeOrder(t *testing.T) {
	t.Parallel()
	tr := mergeAll(t,
		[]layer.Header{file("b/z", 0, 0), file("a/y", 0, 0), file("c", 0, 0), hardlink("a/l", "c")},
		[]layer.Header{file("b/a/deep", 0, 0), file("a/x", 0, 0)})
	want := []string{"/", "/a", "/b", "/c", "/a/x", "/a/y", "/b/a", "/b/z", "/b/a/deep"}
	var got []string
	for row := range tr.Inodes {
		got = append(got, tr.Path(uint32(row)))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rows, -want +got:\n%s", d)
	}
}

func TestMergeLimits(t *testing.T) {
	t.Parallel()
	sparse := file("d/f", 0, 100)
	sparse.Extents = []layer.Extent{{Len: 1}, {Off: 10, Len: 1}}
	sparse.Xattrs = map[string]string{"user.a": "", "user.b": ""}
	layers := indexes(t, []layer.Header{sparse}, []layer.Header{hardlink("l", "d/f")})
	enough := limits{names: 3, extents: 2, xattrs: 2, strings: 100, steps: 5}
	if _, err := merge(layers, enough); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		less func(*limits)
		want string
	}{
		{"names", func(l *limits) { l.names-- }, "names: 3 exceed the limit of 2"},
		{"extents", func(l *limits) { l.extents-- }, "extents: 2 exceed the limit of 1"},
		{"xattrs", func(l *limits) { l.xattrs-- }, "extended attributes: 2 exceed the limit of 1"},
		{"strings", func(l *limits) { l.strings = 5 }, "bytes of names and attributes: 7 exceed the limit of 5"},
		{"steps", func(l *limits) { l.steps-- }, "steps along the paths of links: 5 exceed the limit of 4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			most := enough
			tc.less(&most)
			if _, err := merge(layers, most); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want ErrMalformed with %q", err, tc.want)
			}
		})
	}
}
