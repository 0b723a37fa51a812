package layer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func dir(name string) *Header  { return &Header{Name: name, Mode: typeDir | 0o700} }
func file(name string) *Header { return &Header{Name: name, Mode: typeRegular | 0o600} }
func symlink(name, to string) *Header {
	return &Header{Name: name, Mode: typeSymlink | 0o777, Link: to}
}
func hardlink(name, to string) *Header { return &Header{Name: name, Link: to, Hardlink: true} }

// listing returns a line per entry: path, type, inode row, link and flags.
func listing(x *Index) []string {
	var out []string
	var walk func(row uint32, path string)
	walk = func(row uint32, path string) {
		r := x.Inodes[row].Children
		for _, e := range x.Entries[r.First:][:r.Count] {
			name := path + "/" + x.Name(e)
			switch e.Kind {
			case EntryWhiteout:
				out = append(out, name+" whiteout")
			case EntryLowerLink:
				out = append(out, name+" = lower "+x.Pool.String(e.Link))
			case EntryInode:
				out = append(out, name+describe(x, e.Inode))
				walk(e.Inode, name)
			}
		}
	}
	if flags := describe(x, 0); flags != " dir implicit" {
		out = append(out, "/"+flags)
	}
	walk(0, "")
	return out
}

func describe(x *Index, row uint32) string {
	in := x.Inodes[row]
	switch in.Mode & typeMask {
	case typeDir:
		s := " dir"
		if in.Flags&Implicit != 0 {
			s += " implicit"
		}
		if in.Flags&Opaque != 0 {
			s += " opaque"
		}
		return s
	case typeSymlink:
		return " -> " + x.Pool.String(in.Link)
	}
	return fmt.Sprintf(" %d", row)
}

func build(t testing.TB, headers ...*Header) (*Index, error) {
	t.Helper()
	b := NewBuilder()
	for _, h := range headers {
		if err := b.Add(h); err != nil {
			return nil, err
		}
	}
	return b.Index(InfoInput{Format: FormatTar, Trust: Proved, AddrSize: 0}, Cut{})
}

func TestBuilder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		in   []*Header
		want []string
	}{
		{"empty", nil, nil},
		{"spellings", []*Header{dir("./a/"), file("/a/b"), file("a/../c"), file("./a/./d")}, []string{"/a dir", "/a/b 3", "/a/d 4", "/c 2"}},
		{"root", []*Header{dir("./")}, []string{"/ dir"}},
		{"root opaque", []*Header{file(".wh..wh..opq"), dir("/")}, []string{"/ dir opaque"}},
		{"implicit parents", []*Header{file("a/b/c")}, []string{"/a dir implicit", "/a/b dir implicit", "/a/b/c 3"}},
		{"described late", []*Header{file("a/b"), dir("a")}, []string{"/a dir", "/a/b 2"}},
		{"byte order", []*Header{file("b"), file("a.b"), file("a"), file("\xff"), file("é")}, []string{"/a 1", "/a.b 2", "/b 3", "/é 4", "/\xff 5"}},
		{"breadth first", []*Header{file("a/x"), file("b/x"), file("c")}, []string{"/a dir implicit", "/a/x 4", "/b dir implicit", "/b/x 5", "/c 3"}},
		{"last file wins", []*Header{file("a"), {Name: "a", Mode: typeFifo}}, []string{"/a 1"}},
		{"file over directory", []*Header{file("a/b"), file("a")}, []string{"/a 1"}},
		{"directory over file hides the lower one", []*Header{file("a"), dir("a")}, []string{"/a dir opaque"}},
		{"file as parent", []*Header{file("a"), file("a/b")}, []string{"/a dir opaque", "/a/b 2"}},
		{"symlink as parent", []*Header{symlink("a", "b/c"), file("a/d")}, []string{"/a -> b/c", "/b dir implicit", "/b/c dir implicit", "/b/c/d 4"}},
		{"absolute symlink as parent", []*Header{symlink("x/a", "/b"), file("x/a/d")}, []string{"/b dir implicit", "/b/d 3", "/x dir implicit", "/x/a -> /b"}},
		{"symlink out of the root as parent", []*Header{symlink("x/a", "../../../b"), file("x/a/d")}, []string{"/b dir implicit", "/b/d 3", "/x dir implicit", "/x/a -> ../../../b"}},
		{"directory found anew once replaced", []*Header{file("a/x"), file("a"), file("a/y")}, []string{"/a dir opaque", "/a/y 2"}},
		{"whiteout", []*Header{file("a/.wh.b")}, []string{"/a dir implicit", "/a/b whiteout"}},
		{"whiteout of what is there", []*Header{file("a"), file(".wh.a")}, []string{"/a 1"}},
		{"whiteout before what is there", []*Header{file(".wh.a"), file("a")}, []string{"/a 1"}},
		{"whiteout of a directory that is there", []*Header{file("a/x"), file(".wh.a")}, []string{"/a dir opaque", "/a/x 2"}},
		{"whiteout in a directory replaced", []*Header{file("a/.wh.b"), file("a")}, []string{"/a 1"}},
		{"opaque", []*Header{file("a/b"), file("a/.wh..wh..opq")}, []string{"/a dir implicit opaque", "/a/b 2"}},
		{"opaque first", []*Header{file("a/.wh..wh..opq"), dir("a"), file("a/b")}, []string{"/a dir opaque", "/a/b 2"}},
		{"aufs leftovers", []*Header{file(".wh..wh.aufs"), dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file("a/.wh..wh.orph")}, nil},
		{"whiteout folder", []*Header{file(".wh.a/b")}, nil},
		{"hard link", []*Header{file("a"), hardlink("b", "a"), hardlink("c/d", "/b")}, []string{"/a 1", "/b 1", "/c dir implicit", "/c/d 1"}},
		{"hard link keeps the replaced file", []*Header{file("a"), hardlink("b", "a"), file("a")}, []string{"/a 1", "/b 2"}},
		{"hard link out of a replaced directory", []*Header{file("a/x"), hardlink("b", "a/x"), file("a")}, []string{"/a 1", "/b 2"}},
		{"hard link to a symlink", []*Header{symlink("a", "x"), hardlink("b", "a")}, []string{"/a -> x", "/b -> x"}},
		{"hard link through a symlink", []*Header{symlink("l", "d"), file("d/f"), hardlink("b", "l/f")}, []string{"/b 1", "/d dir implicit", "/d/f 1", "/l -> d"}},
		{"hard link before its target", []*Header{hardlink("a", "c"), hardlink("b", "a"), file("c")}, []string{"/a 1", "/b 1", "/c 1"}},
		{"hard link to below", []*Header{hardlink("a", "/usr/./x"), hardlink("b", "a"), symlink("l", "low"), hardlink("c", "l/y")}, []string{"/a = lower usr/x", "/b = lower usr/x", "/c = lower low/y", "/l -> low"}},
		{"hard link replaced", []*Header{hardlink("a", "x"), file("a")}, []string{"/a 1"}},
		{"same file twice", []*Header{file("a"), hardlink("a", "a")}, []string{"/a 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x, err := build(t, c.in...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, listing(x)); d != "" {
				t.Error(d)
			}
			again, err := Decode(x.Encode())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, listing(again)); d != "" {
				t.Error("decoded", d)
			}
		})
	}
}

func TestBuilderRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x/", maxPath/2)
	for _, c := range []struct {
		name string
		in   []*Header
		want string
	}{
		{"escape", []*Header{file("../x")}, `"../x": leaves the root`},
		{"escape later", []*Header{file("a/../../x")}, "leaves the root"},
		{"absolute escape", []*Header{file("/../x")}, "leaves the root"},
		{"root as a file", []*Header{file("./")}, "root is not a directory"},
		{"NUL", []*Header{file("a\x00b")}, "NUL"},
		{"long name", []*Header{file(strings.Repeat("n", 256))}, "256 exceed the limit of 255"},
		{"long path", []*Header{file(long + "x")}, "4097 exceed the limit of 4096"},
		{"symlink loop as parent", []*Header{symlink("a", "b"), symlink("b", "a"), file("a/x")}, "symlinks on the way"},
		{"depth through symlinks", []*Header{symlink("a", long[:4000]), symlink("b", "a/"+long[:4000]), file("b/x")}, "limit of 2048"},
		{"symlink without target", []*Header{symlink("a", "")}, "without a target"},
		{"long symlink", []*Header{symlink("a", strings.Repeat("x", 4096))}, "4096 exceed the limit of 4095"},
		{"hard link out of the root", []*Header{hardlink("a", "../b")}, "leaves the root"},
		{"hard link to a directory", []*Header{dir("d"), hardlink("a", "d")}, "hard link to a directory"},
		{"hard link to a later directory", []*Header{hardlink("a", "d"), dir("d")}, "hard link to a directory"},
		{"hard link to the root", []*Header{hardlink("a", "/")}, "hard link to a directory"},
		{"hard link to itself", []*Header{hardlink("a", "a")}, "cycle"},
		{"hard link cycle", []*Header{hardlink("a", "b"), hardlink("b", "c"), hardlink("c", "b")}, "cycle"},
		{"nameless whiteout", []*Header{file("a/.wh.")}, "whiteout without a name"},
		{"whiteout of the parent", []*Header{file("a/.wh...")}, "whiteout without a name"},
		{"negative size", []*Header{{Name: "a", Mode: typeRegular, Size: -1}}, "size -1"},
		{"data nowhere", []*Header{{Name: "a", Mode: typeRegular, Size: 1}}, "outside the address space"},
		{"type", []*Header{{Name: "a", Mode: 0o140000}}, "file type"},
		{"nanoseconds", []*Header{{Name: "a", Mode: typeFifo, MtimeNsec: 1e9}}, "nanoseconds"},
		{"xattr value", []*Header{{Name: "a", Mode: typeFifo, Xattrs: map[string]string{"user.x": strings.Repeat("v", 65537)}}}, "bytes of xattr user.x: 65537 exceed the limit of 65536"},
		{"xattr name", []*Header{{Name: "a", Mode: typeFifo, Xattrs: map[string]string{strings.Repeat("n", 256): ""}}}, "limit of 255"},
		{"xattrs together", []*Header{{Name: "a", Mode: typeFifo, Xattrs: map[string]string{
			"a": strings.Repeat("v", 65536), "b": strings.Repeat("v", 65536), "c": strings.Repeat("v", 65536), "d": strings.Repeat("v", 65536),
		}}}, "limit of 262144"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := build(t, c.in...)
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestBuilderLimitsEntries(t *testing.T) {
	t.Parallel()
	b := NewBuilder()
	b.entries = maxEntries - 2
	if err := b.Add(file("a")); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(file("b/c")); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "entries of the layer: 1000001 exceed") {
		t.Errorf("got %v", err)
	}
}

func TestBuilderAttributes(t *testing.T) {
	t.Parallel()
	want := Inode{
		Mode: typeChar | 0o4755, UID: 1, GID: 2, MtimeSec: -5, MtimeNsec: 7, RdevMajor: 8, RdevMinor: 9,
	}
	x, err := build(t, &Header{
		Name: "a", Mode: want.Mode, UID: 1, GID: 2, Size: 77, MtimeSec: -5, MtimeNsec: 7, RdevMajor: 8, RdevMinor: 9,
		Link: "ignored", Xattrs: map[string]string{"user.b": "2", "user.a": "1\x00"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := x.Inodes[1]
	var xattrs []string
	for _, a := range x.Xattrs[got.Xattrs.First:][:got.Xattrs.Count] {
		xattrs = append(xattrs, x.Pool.String(a.Name)+"="+x.Pool.String(a.Value))
	}
	if !slices.Equal(xattrs, []string{"user.a=1\x00", "user.b=2"}) {
		t.Errorf("xattrs %q", xattrs)
	}
	want.Xattrs = got.Xattrs
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
