package tree

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/layer"
)

// All but the last, which umoci refuses, is what umoci 0.4.7 leaves behind.
func TestMergeBehindSymlinks(t *testing.T) {
	t.Parallel()
	type headers = []layer.Header
	merged := headers{dir("usr/lib", 0o700), file("usr/lib/a", 0, 0), file("usr/lib/s/a", 0, 0), symlink("lib", "usr/lib")}
	for _, tc := range []struct {
		name   string
		layers []headers
		want   []string
	}{
		{
			"file",
			[]headers{merged, {file("lib/x", 0, 0), file("lib/a", 0, 0)}},
			[]string{"lib=0", "usr/", "usr/lib/", "usr/lib/a=1", "usr/lib/s/", "usr/lib/s/a=0", "usr/lib/x=1"},
		},
		{"whiteout", []headers{merged, {whiteout("lib", "a"), whiteout("lib/s", "a")}}, []string{"lib=0", "usr/", "usr/lib/", "usr/lib/s/"}},
		{"opaque", []headers{merged, {opaque("lib"), file("lib/x", 0, 0)}}, []string{"lib=0", "usr/", "usr/lib/", "usr/lib/x=1"}},
		{
			"described directory",
			[]headers{merged, {dir("lib/s", 0o700), dir("lib/t", 0o700)}},
			[]string{"lib=0", "usr/", "usr/lib/", "usr/lib/a=0", "usr/lib/s/", "usr/lib/s/a=0", "usr/lib/t/"},
		},
		{
			"joins what the layer has there",
			[]headers{merged, {file("usr/lib/s/b", 0, 0), file("lib/s/c", 0, 0)}},
			[]string{"lib=0", "usr/", "usr/lib/", "usr/lib/a=0", "usr/lib/s/", "usr/lib/s/a=0", "usr/lib/s/b=1", "usr/lib/s/c=1"},
		},
		{
			"two layers above",
			[]headers{merged, {file("x", 0, 0)}, {file("lib/s/b", 0, 0)}, {file("lib/s/c", 0, 0), whiteout("lib/s", "a")}},
			[]string{"lib=0", "usr/", "usr/lib/", "usr/lib/a=0", "usr/lib/s/", "usr/lib/s/b=2", "usr/lib/s/c=3", "x=1"},
		},
		{
			"chain",
			[]headers{{symlink("a", "b"), symlink("b", "/d/c"), symlink("d/c", "../e"), dir("e", 0)}, {file("a/x", 0, 0)}},
			[]string{"a=0", "b=0", "d/", "d/c=0", "e/", "e/x=1"},
		},
		{
			"symlink below a symlink",
			[]headers{{symlink("a", "b"), symlink("b/c", "../d"), dir("d", 0)}, {file("a/c/x", 0, 0)}},
			[]string{"a=0", "b/", "b/c=0", "d/", "d/x=1"},
		},
		{"symlink of another layer", []headers{{symlink("a", "b")}, {symlink("b", "c")}, {file("a/x", 0, 0)}}, []string{"a=0", "b=1", "c/", "c/x=2"}},
		{"dangling", []headers{{symlink("lib", "usr/lib")}, {file("lib/s/x", 0, 0)}}, []string{"lib=0", "usr/", "usr/lib/", "usr/lib/s/", "usr/lib/s/x=1"}},
		{"dangling, whiteouts only", []headers{{symlink("lib", "usr/lib")}, {whiteout("lib", "x"), opaque("lib/s")}}, []string{"lib=0"}},
		{"whiteouts below a file", []headers{{symlink("lib", "f"), file("f", 0, 0)}, {whiteout("lib", "x"), opaque("lib")}}, []string{"f=0", "lib=0"}},
		{"back from what is missing", []headers{{symlink("a", "no/../d")}, {file("a/x", 0, 0)}}, []string{"a=0", "d/", "d/x=1"}},
		{"back from a file", []headers{{symlink("a", "f/../d"), file("f", 0, 0)}, {file("a/x", 0, 0)}}, []string{"a=0", "d/", "d/x=1", "f=0"}},
		{"out of the root", []headers{{symlink("a", "../../../etc")}, {file("a/x", 0, 0)}}, []string{"a=0", "etc/", "etc/x=1"}},
		{"to the root", []headers{{symlink("d/a", "/"), file("y", 0, 0)}, {file("d/a/x", 0, 0), whiteout("d/a", "y")}}, []string{"d/", "d/a=0", "x=1"}},
		{
			"symlink hidden by a whiteout",
			[]headers{merged, {whiteout(".", "lib"), file("lib/x", 0, 0)}},
			[]string{"lib/", "lib/x=1", "usr/", "usr/lib/", "usr/lib/a=0", "usr/lib/s/", "usr/lib/s/a=0"},
		},
		{"symlink hidden by an opaque parent", []headers{{symlink("d/l", "/e"), dir("e", 0)}, {opaque("d"), file("d/l/x", 0, 0)}}, []string{"d/", "d/l/", "d/l/x=1", "e/"}},
		{
			"symlink that a lower layer hid",
			[]headers{merged, {whiteout(".", "lib")}, {file("lib/x", 0, 0)}},
			[]string{"lib/", "lib/x=2", "usr/", "usr/lib/", "usr/lib/a=0", "usr/lib/s/", "usr/lib/s/a=0"},
		},
		{"hard link to a symlink", []headers{merged, {hardlink("l", "lib")}, {file("l/x", 0, 0), opaque("l")}}, []string{"l=0", "lib=0", "usr/", "usr/lib/", "usr/lib/x=2"}},
		{
			"target that the layer moves",
			[]headers{{symlink("a", "b"), file("b/y", 0, 0)}, {whiteout(".", "b"), symlink("b", "c"), file("a/x", 0, 0)}},
			[]string{"a=0", "b=1", "c/", "c/x=1"},
		},
		{
			"a name twice",
			[]headers{merged, {file("usr/lib/x/y", 0, 0), file("lib/x", 0, 0)}},
			[]string{"lib=0", "usr/", "usr/lib/", "usr/lib/a=0", "usr/lib/s/", "usr/lib/s/a=0", "usr/lib/x=1"},
		},
		{
			"a directory in the place of a file",
			[]headers{{symlink("lib", "d"), file("d/x/a", 0, 0)}, {file("d/x", 0, 0), file("lib/x/y", 0, 0)}},
			[]string{"d/", "d/x/", "d/x/y=1", "lib=0"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := mergeAll(t, tc.layers...)
			if d := cmp.Diff(tc.want, paths(tr)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			checkAgainstOverlay(t, tc.layers)
		})
	}
}

func TestMergeBehindSymlinksAttributes(t *testing.T) {
	t.Parallel()
	type headers = []layer.Header
	lower := headers{dir("usr/lib", 0o700), dir("usr/lib/s", 0o710), symlink("lib", "usr/lib")}
	for _, tc := range []struct {
		name   string
		layers []headers
		path   string
		perm   uint32
	}{
		{"the target's stay", []headers{lower, {file("lib/x", 0, 0)}}, "usr/lib", 0o700},
		{"those below it too", []headers{lower, {file("lib/s/x", 0, 0)}}, "usr/lib/s", 0o710},
		{"a described one replaces them", []headers{lower, {dir("lib/s", 0o750)}}, "usr/lib/s", 0o750},
		{"a described one that meets another", []headers{lower, {dir("usr/lib/s", 0o740), dir("lib/s", 0o750)}}, "usr/lib/s", 0o750},
		{"an implicit one that meets a described one", []headers{lower, {dir("usr/lib/s", 0o740), file("lib/s/x", 0, 0)}}, "usr/lib/s", 0o740},
		{"made for the link", []headers{{symlink("lib", "usr/lib")}, {file("lib/x", 0, 0)}}, "usr/lib", 0o755},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := mergeAll(t, tc.layers...)
			row, err := tr.Walk(tc.path)
			if err != nil {
				t.Fatal(err)
			}
			if got := tr.Inodes[row].Mode; got != typeDir|tc.perm {
				t.Errorf("mode %o, want %o", got, tc.perm)
			}
		})
	}
}

func TestMergeBehindSymlinksRefuses(t *testing.T) {
	t.Parallel()
	type headers = []layer.Header
	long := func(n int) headers { // a chain of n symlinks from l0
		var hs headers
		for i := range n {
			hs = append(hs, symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d", i+1)))
		}
		return hs
	}
	mergeAll(t, long(maxLinks), headers{file("l0/x", 0, 0)})
	deep := strings.Repeat("d/", maxDepth-1)
	mergeAll(t, headers{symlink("l", deep[:4094])}, headers{file("l/x", 0, 0)})
	for _, tc := range []struct {
		name   string
		layers []headers
		want   string
	}{
		{"loop", []headers{{symlink("a", "b"), symlink("b", "a")}, {file("d/x", 0, 0), file("a/x", 0, 0)}}, "a: malformed image: too many levels of symbolic links"},
		{"loop, whiteouts only", []headers{{symlink("a", "a")}, {whiteout("a", "x")}}, "too many levels of symbolic links"},
		{"long chain", []headers{long(maxLinks + 1), {file("l0/x", 0, 0)}}, "l0: malformed image: too many levels of symbolic links"},
		{"file", []headers{{symlink("lib", "f"), file("f", 0, 0)}, {file("lib/x", 0, 0)}}, "lib: malformed image: leads to f: not a directory"},
		{"file on the way", []headers{{symlink("d/l", "f/e"), file("d/f", 0, 0)}, {file("d/l/x", 0, 0)}}, "d/l: malformed image: leads to d/f: not a directory"},
		{"file of the layer", []headers{{symlink("lib", "f")}, {file("lib/x", 0, 0), file("f", 0, 0)}}, "leads to f: not a directory"},
		{"long name", []headers{{symlink("l", strings.Repeat("n", maxName+1))}, {file("l/x", 0, 0)}}, "bytes of a name: 256 exceed the limit of 255"},
		{"depth", []headers{{symlink("l", deep[:4094]), symlink("k", "l/d/d")}, {file("k/x", 0, 0)}}, "directories deep: 2049 exceed the limit of 2048"},
		{"hard link through a loop", []headers{{symlink("a", "a")}, {hardlink("h", "a/x")}}, `h: malformed image: hard link to "a/x": too many levels of symbolic links`},
		{"hard links that lead to each other", []headers{{symlink("s", ".")}, {hardlink("a", "s/b"), hardlink("b", "s/a")}}, "too many levels of symbolic links"},
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

func TestMergeBehindSymlinksLimits(t *testing.T) {
	t.Parallel()
	layers := indexes(t, []layer.Header{symlink("l", "made/dir")}, []layer.Header{file("l/x", 0, 0)})
	enough := limits{names: 4, strings: 100, steps: 100}
	if _, err := merge(layers, enough); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		less func(*limits)
		want string
	}{
		{"directories", func(l *limits) { l.names = 1 }, "directories made: 2 exceed the limit of 1"},
		{"names", func(l *limits) { l.strings = 6 }, "bytes of their names: 7 exceed the limit of 6"},
		{"steps", func(l *limits) { l.steps = 2 }, "steps along the paths of links: 3 exceed the limit of 2"},
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
