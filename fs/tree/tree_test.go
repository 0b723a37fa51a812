package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/layer"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	var headers []layer.Header
	for i := range 100 {
		headers = append(headers, file(fmt.Sprintf("d/%03d", i*2), 0, 0))
	}
	tr := mergeAll(t, append(headers, file("e", 0, 0), dir("empty", 0o755)))
	d, _ := tr.Lookup(0, "d")
	for i := range 200 {
		name := fmt.Sprintf("%03d", i)
		row, ok := tr.Lookup(d, name)
		if ok != (i%2 == 0) || ok && tr.Path(row) != "/d/"+name {
			t.Errorf("Lookup(%q) = %d, %v", name, row, ok)
		}
	}
	for _, name := range []string{"", ".", "..", "0", "0000", "d/000", "zzz"} {
		if row, ok := tr.Lookup(d, name); ok {
			t.Errorf("Lookup(%q) = %d", name, row)
		}
	}
	for _, name := range []string{"e", "empty"} {
		row, _ := tr.Lookup(0, name)
		if _, ok := tr.Lookup(row, "x"); ok || len(tr.Children(row)) != 0 {
			t.Errorf("%s has children", name)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	tr := everything(t)
	bin := tr.mustWalk("bin")
	if n := testing.AllocsPerRun(100, func() { tr.Lookup(bin, "pong") }); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}

func TestXattrs(t *testing.T) {
	t.Parallel()
	with := func(h layer.Header, xattrs map[string]string) layer.Header {
		h.Xattrs = xattrs
		return h
	}
	tr := mergeAll(t,
		[]layer.Header{with(file("a", 0, 0), map[string]string{"user.b": "2", "user.a": "\x00", "user.empty": ""}), file("plain", 0, 0)},
		[]layer.Header{with(dir("d", 0o755), map[string]string{"user.a": "dir"}), hardlink("l", "a")})
	for _, tc := range []struct{ path, name, want string }{
		{"a", "user.a", "\x00"}, {"l", "user.b", "2"}, {"d", "user.a", "dir"}, {"a", "user.empty", ""},
	} {
		row, err := tr.Walk(tc.path)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := tr.Xattr(row, tc.name); !ok || v != tc.want {
			t.Errorf("%s %s = %q, %v", tc.path, tc.name, v, ok)
		}
		if _, ok := tr.Xattr(row, "user.none"); ok {
			t.Errorf("%s has user.none", tc.path)
		}
	}
	a, _ := tr.Walk("a")
	var names []string
	for _, x := range tr.XattrsOf(a) {
		names = append(names, tr.Pool.String(x.Name))
	}
	if d := cmp.Diff([]string{"user.a", "user.b", "user.empty"}, names); d != "" {
		t.Error(d)
	}
	if plain, _ := tr.Walk("plain"); len(tr.XattrsOf(plain)) != 0 {
		t.Error("plain has xattrs")
	}
	if !tr.HasXattrs() || mergeAll(t, []layer.Header{file("a", 0, 0)}).HasXattrs() {
		t.Error("HasXattrs")
	}
	checkTree(t, tr)
}

func TestSize(t *testing.T) {
	t.Parallel()
	tr := mergeAll(t, []layer.Header{file("a", 0, 10), hardlink("b", "a"), file("c", 0, 5), symlink("s", "target")}, []layer.Header{file("c", 0, 1)})
	if tr.Size() != 11 {
		t.Errorf("size %d, want 11: a once, the upper c", tr.Size())
	}
}

func resolveTree(tb testing.TB) *Tree {
	return mergeAll(tb, []layer.Header{
		file("usr/lib/so", 0, 0), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib/so"), symlink("usr/up", "../etc"),
		file("etc/passwd", 0, 0), symlink("out", "../../../etc/passwd"), symlink("rel", "./lib//so"),
		symlink("loop1", "loop2"), symlink("loop2", "loop1"), symlink("self", "self/x"), symlink("dangling", "none"),
		symlink("slash", "lib/"), symlink("fileslash", "etc/passwd/"), symlink("root", "/"), symlink("dots", ".."), symlink("usr/lib/back", "../.."),
	})
}

func TestResolve(t *testing.T) {
	t.Parallel()
	tr := resolveTree(t)
	const follow, noFollow, walk = 1, 2, 4
	for _, tc := range []struct {
		path string
		how  int
		want string // path, or the error
		err  error
	}{
		{"", follow | noFollow | walk, "/", nil},
		{"/", follow | noFollow | walk, "/", nil},
		{".", follow | noFollow | walk, "/", nil},
		{"../..", follow | noFollow | walk, "/", nil},
		{"//usr/./lib/../lib/so", follow | noFollow | walk, "/usr/lib/so", nil},
		{"usr/lib/", follow | noFollow | walk, "/usr/lib", nil},
		{"lib", follow, "/usr/lib", nil},
		{"lib", noFollow | walk, "/lib", nil},
		{"lib/", follow | noFollow, "/usr/lib", nil},
		{"lib/", walk, "", ErrNotDir},
		{"lib/so", follow | noFollow, "/usr/lib/so", nil},
		{"lib/so", walk, "", ErrNotDir},
		{"lib/..", follow | noFollow, "/usr", nil},
		{"abs", follow, "/usr/lib/so", nil},
		{"usr/up/passwd", follow | noFollow, "/etc/passwd", nil},
		{"out", follow, "/etc/passwd", nil},
		{"rel", follow, "/usr/lib/so", nil},
		{"slash", follow, "/usr/lib", nil},
		{"root/root/etc/passwd", follow | noFollow, "/etc/passwd", nil},
		{"dots", follow, "/", nil},
		{"lib/back/lib/back/etc", follow | noFollow, "/etc", nil},
		{"dangling", noFollow | walk, "/dangling", nil},
		{"dangling", follow, "", ErrNotExist},
		{"none", follow | noFollow | walk, "", ErrNotExist},
		{"none/..", follow | noFollow | walk, "", ErrNotExist},
		{"etc/passwd/", follow | noFollow | walk, "", ErrNotDir},
		{"etc/passwd/.", follow | noFollow | walk, "", ErrNotDir},
		{"etc/passwd/..", follow | noFollow | walk, "", ErrNotDir},
		{"etc/passwd/x", follow | noFollow | walk, "", ErrNotDir},
		{"fileslash", follow, "", ErrNotDir},
		{"loop1", follow, "", ErrLoop},
		{"loop1/x", follow | noFollow, "", ErrLoop},
		{"self", follow, "", ErrLoop},
		{strings.Repeat("root/", 40) + "etc", follow | noFollow, "/etc", nil},
		{strings.Repeat("root/", 41) + "etc", follow | noFollow, "", ErrLoop},
	} {
		for how, f := range map[int]func(string) (uint32, error){follow: tr.Resolve, noFollow: tr.ResolveNoFollow, walk: tr.Walk} {
			if tc.how&how == 0 {
				continue
			}
			row, err := f(tc.path)
			if !errors.Is(err, tc.err) || err == nil && tr.Path(row) != tc.want {
				t.Errorf("%q (%d): %s, %v; want %s, %v", tc.path, how, tr.Path(row), err, tc.want, tc.err)
			}
		}
	}
}

func TestPathErrors(t *testing.T) {
	t.Parallel()
	tr := resolveTree(t)
	_, err := tr.Resolve("/no/such")
	if !errors.Is(err, fs.ErrNotExist) || !errdefs.IsNotFound(err) || err.Error() != "/no/such: no such file or directory" {
		t.Error(err)
	}
	if _, err = tr.Resolve("/etc/passwd/x"); !errdefs.IsNotFound(err) || errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
}

func TestFits(t *testing.T) {
	t.Parallel()
	a := indexes(t, []layer.Header{file("a", 0, 0)}, []layer.Header{file("b", 0, 0), file("c", 0, 0)})
	tr, err := Merge(a)
	if err != nil {
		t.Fatal(err)
	}
	like := func(x *layer.Index) *layer.Index {
		return &layer.Index{Info: x.Info, Inodes: x.Inodes, Entries: x.Entries, Spans: x.Spans, Pool: x.Pool}
	}
	other, otherBlob := like(a[0]), like(a[0])
	other.Info.Format = layer.FormatZstd
	otherBlob.Info.Blob = otherBlob.Info.Claim
	for _, tc := range []struct {
		name   string
		layers []*layer.Index
		want   bool
	}{
		{"the same", a, true},
		{"alike", []*layer.Index{like(a[0]), like(a[1])}, true},
		{"fewer", a[:1], false},
		{"none", nil, false},
		{"swapped", []*layer.Index{a[1], a[0]}, false},
		{"other format", []*layer.Index{other, a[1]}, false},
		{"other blob", []*layer.Index{otherBlob, a[1]}, false},
	} {
		if got := tr.Fits(tc.layers); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
