//go:build linux

package testkit

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"
)

// A recipe makes an image of Debian packages, three layers of them. The two
// upper layers also delete and replace what lies below.
type recipe struct {
	name   string
	layers [3][]string
}

// recipeVersion changes with everything in this package that changes the images.
const recipeVersion = 8

func recipes() []recipe {
	return []recipe{
		{"python", [3][]string{
			{"base-files", "libc6", "tzdata", "python3.11-minimal", "libpython3.11-minimal", "linux-libc-dev"},
			{"libpython3.11-stdlib", "ncurses-term", "zlib1g", "libexpat1"},
			{"perl-modules-5.36", "adduser"},
		}},
		{"terminal", [3][]string{
			{"base-files", "libc6", "dash", "perl-base", "ncurses-term", "ncurses-base"},
			{"perl-modules-5.36", "manpages"},
			{"tzdata", "mime-support", "iputils-ping", "linux-libc-dev"},
		}},
	}
}

// An editor changes an upper layer over a view of the layers below it.
type editor struct {
	rng   *rand.Rand
	lower map[string]byte // path to type, of the merged layers below
	layer []Entry
	here  map[string]bool // paths that the layer has, hides or needs; "gone:" paths may have no children
	files []string        // regular files of lower, sorted
	dirs  []string        // directories of lower with 2 to 40 children, sorted
}

func newEditor(seed uint64, lower map[string]byte, layer []Entry) *editor {
	ed := &editor{rng: rand.New(rand.NewPCG(seed, 7)), lower: lower, layer: layer, here: map[string]bool{}}
	for _, e := range layer {
		for name := clean(e.Name); name != "."; name = path.Dir(name) {
			ed.here[name] = true
		}
	}
	children := map[string]int{}
	for name, kind := range lower {
		children[path.Dir(name)]++
		if kind == tar.TypeReg {
			ed.files = append(ed.files, name)
		}
	}
	for name, n := range children {
		if n >= 2 && n <= 40 && name != "." && strings.Count(name, "/") >= 2 {
			ed.dirs = append(ed.dirs, name)
		}
	}
	slices.Sort(ed.files)
	slices.Sort(ed.dirs)
	return ed
}

// take picks a path that the layer does not touch yet, nor anything below or
// above it, and claims it.
func (ed *editor) take(from []string) string {
	for {
		name := from[ed.rng.IntN(len(from))]
		free := !ed.here[name]
		for dir := path.Dir(name); free && dir != "."; dir = path.Dir(dir) {
			free = ed.lower[dir] == tar.TypeDir && !ed.here["gone:"+dir]
		}
		if free {
			ed.here["gone:"+name] = true
			for dir := name; dir != "."; dir = path.Dir(dir) {
				ed.here[dir] = true
			}
			return name
		}
	}
}

func (ed *editor) add(entries ...Entry) { ed.layer = append(ed.layer, entries...) }

func (ed *editor) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef\n "[ed.rng.IntN(18)]
	}
	return b
}

// deletions hides files, whole directories and directories' former content.
func (ed *editor) deletions() {
	for range 60 {
		ed.add(Whiteout(ed.take(ed.files)))
	}
	for range 4 {
		ed.add(Whiteout(ed.take(ed.dirs)))
	}
	early, late := ed.take(ed.dirs), ed.take(ed.dirs)
	ed.add(Dir(early), Opaque(early), File(early+"/after-opaque", ed.noise(100)))
	ed.add(Dir(late), File(late+"/before-opaque", ed.noise(100)), Opaque(late))
	implied := ed.take(ed.dirs)
	ed.add(Opaque(implied), File(implied+"/of-a-directory-not-described", ed.noise(20)))
	again := ed.take(ed.dirs)
	ed.add(Whiteout(again), Dir(again), File(again+"/reborn", ed.noise(50)))
}

// replacements puts every kind of thing in the place of every other.
func (ed *editor) replacements() {
	for range 40 {
		ed.add(File(ed.take(ed.files), ed.noise(ed.rng.IntN(9000))))
	}
	for range 3 {
		dir := ed.take(ed.files)
		ed.add(Dir(dir), File(dir+"/inside", ed.noise(10)))
		ed.add(File(ed.take(ed.dirs), []byte("was a directory\n")))
		ed.add(Symlink(ed.take(ed.dirs), "/usr/share"))
		ed.add(Symlink(ed.take(ed.files), "../some/where"))
		ed.add(Hardlink(ed.take(ed.files), ed.layer[len(ed.layer)-1].Name).With(func(h *tar.Header) { h.Linkname = ed.regular() }))
		ed.add(Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: ed.take(ed.files), Mode: 0o620, ModTime: Epoch}})
	}
}

// regular is a regular file of this layer.
func (ed *editor) regular() string {
	for {
		e := ed.layer[ed.rng.IntN(len(ed.layer))]
		if e.Typeflag == tar.TypeReg && e.Size > 0 && !strings.Contains(e.Name, ".wh.") {
			return clean(e.Name)
		}
	}
}

// oddities adds what packages seldom have.
func (ed *editor) oddities(n int) {
	dir := fmt.Sprintf("srv/odd-%d", n)
	ed.add(Dir("srv"), Dir(dir).With(func(h *tar.Header) { h.Mode = 0o1777 }))
	for i := range 12 {
		ed.add(Hardlink(fmt.Sprintf("%s/hard-%d", dir, i), ed.regular()))
	}
	below := ed.take(ed.files)
	ed.add(Hardlink(dir+"/hard-to-lower", below))
	zeros := slices.Concat(ed.noise(3000), make([]byte, 300_000), ed.noise(70_000), make([]byte, 5000))
	long := strings.Repeat("n", 255)
	deep := dir
	for range 30 {
		deep += "/deeper-and"
		ed.add(Dir(deep))
	}
	dev := func(name string, kind byte, major, minor int64) Entry {
		return Entry{Header: tar.Header{Typeflag: kind, Name: dir + "/" + name, Mode: 0o640, ModTime: Epoch, Devmajor: major, Devminor: minor}}
	}
	ed.add(
		File(dir+"/zeros", zeros),
		File(dir+"/big", bytes.Repeat(ed.noise(1009), 2100)),
		File(dir+"/empty", nil),
		File(dir+"/"+long, []byte("long name")),
		File(deep+"/leaf", []byte("deep")),
		File(dir+"/новый файл 🎈", []byte("names of any letters")),
		File(dir+"/line\nbreak", []byte("newline")),
		File(dir+"/capable", []byte("#!/bin/sh\n")).Xattr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00").With(func(h *tar.Header) { h.Mode = 0o755 }),
		File(dir+"/xattrs", []byte("x")).Xattr("user.text", "value").Xattr("user.bytes", "\xff\xfe\x01="),
		File(dir+"/setuid", []byte("s")).With(func(h *tar.Header) { h.Mode = 0o6755; h.Uid, h.Gid = 1234, 4321 }),
		File(dir+"/before-epoch", []byte("old")).With(func(h *tar.Header) { h.ModTime = time.Unix(-86400*365, 0) }),
		File(dir+"/far-future", []byte("new")).With(func(h *tar.Header) { h.ModTime = time.Unix(4_000_000_000, 0) }),
		Symlink(dir+"/dangling", "/no/such/place/at/all"),
		Symlink(dir+"/long", strings.Repeat("../x/", 200)),
		dev("char", tar.TypeChar, 1, 3), dev("block", tar.TypeBlock, 259, 70000),
		File("./"+dir+"/dotted", []byte("dotted name")),
	)
	for i := range ed.layer {
		if e := &ed.layer[i]; i%7 == 0 && e.Typeflag == tar.TypeReg {
			e.ModTime = e.ModTime.Add(123_456_789)
		}
	}
}

// edit is what an upper layer of an image holds: packages and changes.
func edit(n int, lower map[string]byte, layer []Entry) []Entry {
	ed := newEditor(uint64(n), lower, layer)
	ed.deletions()
	ed.replacements()
	ed.oddities(n)
	return ed.layer
}

// apply lays a layer over a view of paths and their types.
func apply(view map[string]byte, layer []Entry) {
	hide := func(name string) {
		for other := range view {
			if other == name || strings.HasPrefix(other, name+"/") {
				delete(view, other)
			}
		}
	}
	for _, e := range layer {
		dir, base := path.Split(clean(e.Name))
		if base == ".wh..wh..opq" {
			hide(strings.TrimSuffix(dir, "/"))
			view[strings.TrimSuffix(dir, "/")] = tar.TypeDir
		} else if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
			hide(dir + hidden)
		}
	}
	for _, e := range layer {
		name := clean(e.Name)
		if strings.HasPrefix(path.Base(name), ".wh.") {
			continue
		}
		if e.Typeflag != tar.TypeDir && view[name] == tar.TypeDir {
			hide(name)
		}
		view[name] = e.Typeflag
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			view[dir] = tar.TypeDir
		}
	}
}
