package tree

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/layer"
)

// The oracle of merging: every layer is applied to a map of paths, header by
// header, the way an eager extractor goes about it.

// node is a file object; hard links share the pointer.
type node struct {
	mode, uid uint32
	layer     int
	addr      int64
	link      string
	implicit  bool
}

func (n *node) dir() bool { return n.mode&typeMask == typeDir }

// fileMap is a tree by clean relative path; the root is ".".
type fileMap map[string]*node

func (m fileMap) removeBelow(dir string) {
	for p := range m {
		if p != dir && within(p, dir) {
			delete(m, p)
		}
	}
}

func (m fileMap) remove(p string) {
	m.removeBelow(p)
	delete(m, p)
}

func within(p, dir string) bool { return dir == "." || p == dir || strings.HasPrefix(p, dir+"/") }

// upper is one layer on its own.
type upper struct {
	files     fileMap
	whiteouts map[string]bool
	opaque    map[string]bool
	pending   map[string]string // hard links without a target so far
	layer     int
}

var errOracle = errors.New("an extractor fails here")

// overlay applies the layers bottom first.
func overlay(layers [][]layer.Header) (fileMap, error) {
	view := fileMap{".": {mode: typeDir | 0o755, implicit: true}}
	for i, headers := range layers {
		u := &upper{
			files:     fileMap{".": {mode: typeDir | 0o755, implicit: true}},
			whiteouts: map[string]bool{}, opaque: map[string]bool{}, pending: map[string]string{}, layer: i,
		}
		for _, h := range headers {
			u.add(h)
		}
		if err := u.applyTo(view); err != nil {
			return nil, err
		}
	}
	return view, nil
}

func (u *upper) add(h layer.Header) {
	name := path.Clean(h.Name)
	if name == "." {
		u.files["."] = u.node(h)
		return
	}
	dir, base := u.resolve(path.Dir(name), true), path.Base(name)
	at := path.Join(dir, base)
	switch {
	case base == ".wh..wh..opq":
		u.opaque[dir] = true
	case strings.HasPrefix(base, ".wh."):
		u.whiteouts[path.Join(dir, strings.TrimPrefix(base, ".wh."))] = true
	case h.Hardlink:
		target := u.resolveName(h.Link)
		if n := u.files[target]; n != nil {
			if u.files[at] != n {
				u.put(at, n)
			}
			return
		}
		u.clear(at)
		u.pending[at] = h.Link
	default:
		u.put(at, u.node(h))
	}
}

func (u *upper) node(h layer.Header) *node {
	n := &node{mode: h.Mode, uid: h.UID, layer: u.layer, link: h.Link}
	if h.Size > 0 {
		n.addr = h.Addr
	}
	return n
}

// put makes n the file at p. A directory in the place of this layer's own file
// hides what lower layers have there, as the file did.
func (u *upper) put(p string, n *node) {
	old, pending := u.files[p], u.pending[p] != ""
	if old != nil && old.dir() && n.dir() {
		u.files[p] = n
		return
	}
	u.clear(p)
	u.files[p] = n
	if n.dir() && (old != nil || pending) {
		u.opaque[p] = true
	}
}

func (u *upper) clear(p string) {
	u.files.remove(p)
	for _, set := range []map[string]bool{u.whiteouts, u.opaque} {
		maps.DeleteFunc(set, func(q string, _ bool) bool { return within(q, p) && (q != p || !u.whiteouts[p]) })
	}
	maps.DeleteFunc(u.pending, func(q, _ string) bool { return within(q, p) })
}

// resolve follows the layer's own symlinks on the way to a directory, and
// makes what is missing if create.
func (u *upper) resolve(dir string, create bool) string {
	at := "."
	for rest := dir; rest != "" && rest != "."; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next := path.Join(at, name)
		n := u.files[next]
		switch {
		case name == "" || name == ".":
		case name == "..":
			at = path.Dir(at)
		case n != nil && n.mode&typeMask == typeSymlink:
			if strings.HasPrefix(n.link, "/") {
				at = "."
			}
			rest = n.link + "/" + rest
		case create && (n == nil || !n.dir()):
			described := n != nil || u.pending[next] != ""
			u.put(next, &node{mode: typeDir | 0o755, implicit: !described, layer: u.layer})
			at = next
		default:
			at = next
		}
	}
	return at
}

func (u *upper) resolveName(name string) string {
	name = path.Clean(name)
	return path.Join(u.resolve(path.Dir(name), false), path.Base(name))
}

// applyTo overlays the layer on what the lower ones show.
func (u *upper) applyTo(view fileMap) error {
	if err := u.settlePending(); err != nil {
		return err
	}
	if err := u.redirect(view); err != nil {
		return err
	}
	links := map[string]*node{}
	for at, target := range u.pending {
		n, err := u.linkTarget(view, target)
		if err != nil {
			return err
		}
		links[at] = n
	}
	defer func() {
		for at, n := range links {
			view.remove(at)
			view[at] = n
		}
	}()
	for p := range u.whiteouts {
		if n := u.files[p]; n != nil && n.dir() {
			n.implicit = false
		}
		view.remove(p)
	}
	for p := range u.opaque {
		view.removeBelow(p)
	}
	for _, p := range slices.Sorted(maps.Keys(u.files)) {
		n, old := u.files[p], view[p]
		if !n.dir() || old == nil || !old.dir() {
			view.remove(p)
		} else if n.implicit {
			continue
		}
		view[p] = n
	}
	return nil
}

// settlePending finds the targets of hard links in the layer itself, and what
// path the others name.
func (u *upper) settlePending() error {
	own, lower := map[string]*node{}, map[string]string{}
	for at, target := range u.pending {
		for range len(u.pending) + 1 {
			p := u.resolveName(target)
			if n := u.files[p]; n != nil {
				own[at] = n
				break
			}
			lower[at] = p
			if u.pending[p] == "" {
				break
			}
			target = u.pending[p]
		}
		if n := own[at]; n != nil && n.dir() {
			return errOracle
		}
	}
	maps.Copy(u.files, own)
	u.pending = lower
	maps.DeleteFunc(u.pending, func(at, _ string) bool { return own[at] != nil })
	return nil
}

// list returns a line for every path, sorted.
func (m fileMap) list() []string {
	names, subdirs := map[*node]int{}, map[string]int{}
	for p, n := range m {
		names[n]++
		if n.dir() && p != "." {
			subdirs[path.Dir(p)]++
		}
	}
	var out []string
	for p, n := range m {
		if n.dir() {
			out = append(out, fmt.Sprintf("%s %o %d %d", path.Join("/", p), n.mode, n.uid, 2+subdirs[p]))
		} else {
			out = append(out, fmt.Sprintf("%s %o %d %d %s %d:%d", path.Join("/", p), n.mode, n.uid, names[n], n.link, n.layer, n.addr))
		}
	}
	slices.Sort(out)
	return out
}

// list returns the same lines of a tree.
func list(t *Tree) []string {
	var out []string
	var visit func(row uint32, p string)
	visit = func(row uint32, p string) {
		n := t.Inodes[row]
		if !isDir(n.Mode) {
			out = append(out, fmt.Sprintf("%s %o %d %d %s %d:%d", p, n.Mode, n.UID, n.Nlink, t.Link(row), n.Layer, n.Addr))
			return
		}
		out = append(out, fmt.Sprintf("%s %o %d %d", p, n.Mode, n.UID, n.Nlink))
		for _, e := range t.Children(row) {
			visit(e.Inode, path.Join(p, t.Name(e)))
		}
	}
	visit(0, "/")
	slices.Sort(out)
	return out
}

// script turns any bytes into layers over a few names, so that they collide.
func script(data []byte) [][]layer.Header {
	layers := make([][]layer.Header, 1)
	var files []string
	for i := 0; i+3 <= len(data) && i < 3*150; i += 3 {
		last := &layers[len(layers)-1]
		name, arg := scriptPath(data[i+1]), uint32(data[i+2])
		h := layer.Header{Name: name, UID: uint32(i), Mode: typeFile | arg&0o777, Addr: int64(i + 1), Size: int64(arg % 4)}
		switch data[i] % 12 {
		case 0, 1:
			h.Mode, h.Size = typeDir|arg&0o777, 0
		case 2, 3:
			h.Mode, h.Link, h.Size = typeSymlink|0o777, scriptPath(data[i+2]%13), 0
			switch arg / 64 {
			case 1:
				h.Link = "../" + h.Link
			case 2, 3:
				h.Link = "/" + h.Link
			}
		case 4, 5:
			if len(files) == 0 {
				continue
			}
			h.Hardlink, h.Link = true, files[int(arg)%len(files)]
		case 6, 7:
			h.Name = path.Join(path.Dir(name), ".wh."+path.Base(name))
		case 8:
			h.Name = path.Join(name, ".wh..wh..opq")
		case 9:
			if len(layers) < 8 {
				layers = append(layers, nil)
			}
			continue
		}
		if name == "." && h.Mode&typeMask != typeDir {
			h.Name = "top"
		}
		if h.Mode&typeMask == typeFile && h.Name == name {
			files = append(files, name)
		}
		*last = append(*last, h)
	}
	return layers
}

// scriptPath picks one of the paths of up to three components over a, b, c.
func scriptPath(pick byte) string {
	n := int(pick) % 40
	switch {
	case n == 12:
		return "."
	case n < 3:
		return "abc"[n : n+1]
	case n < 12:
		n -= 3
		return "abc"[n/3:n/3+1] + "/" + "abc"[n%3:n%3+1]
	}
	n -= 13
	return "abc"[n/9:n/9+1] + "/" + "abc"[n/3%3:n/3%3+1] + "/" + "abc"[n%3:n%3+1]
}

// checkAgainstOverlay reports whether the layers were acceptable at all.
func checkAgainstOverlay(t *testing.T, layers [][]layer.Header) bool {
	t.Helper()
	indexes := make([]*layer.Index, len(layers))
	for i, headers := range layers {
		var err error
		if indexes[i], err = index(headers); err != nil {
			if !errors.Is(err, layer.ErrMalformed) {
				t.Fatalf("layer %d: %v", i, err)
			}
			return false
		}
	}
	want, oracleErr := overlay(layers)
	got, err := Merge(indexes)
	if (err != nil) != (oracleErr != nil) {
		t.Fatalf("Merge: %v, overlay: %v\n%s", err, oracleErr, show(layers))
	}
	if err != nil {
		if !errors.Is(err, ErrMalformed) {
			t.Fatalf("Merge: %v", err)
		}
		return false
	}
	if w, g := want.list(), list(got); !slices.Equal(w, g) {
		t.Fatalf("merged tree differs from the overlay (-want +got):\n%s\n%s", cmp.Diff(w, g), show(layers))
	}
	checkTree(t, got)
	again, err := Merge(indexes)
	if err != nil || !bytes.Equal(got.Encode(), again.Encode()) {
		t.Fatalf("merged twice, two results; %v", err)
	}
	return true
}

func show(layers [][]layer.Header) string {
	var b strings.Builder
	for i, headers := range layers {
		fmt.Fprintf(&b, "layer %d\n", i)
		for _, h := range headers {
			fmt.Fprintf(&b, "  %s %o uid=%d hard=%v link=%s addr=%d size=%d\n", h.Name, h.Mode, h.UID, h.Hardlink, h.Link, h.Addr, h.Size)
		}
	}
	return b.String()
}

// checkTree checks that look-ups agree with the tables, and that the file form
// gives the tree back.
func checkTree(t *testing.T, tr *Tree) {
	t.Helper()
	decoded, err := Decode(tr.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if want, got := list(tr), list(decoded); !slices.Equal(want, got) || decoded.Size() != tr.Size() {
		t.Fatalf("decoded tree differs:\n%s", cmp.Diff(want, got))
	}
	for row := range tr.Inodes {
		at, err := decoded.Walk(decoded.Path(uint32(row)))
		if err != nil || at != uint32(row) {
			t.Fatalf("Walk(%q) = %d, %v; want %d", decoded.Path(uint32(row)), at, err, row)
		}
	}
}

func FuzzMerge(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(randomScript(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkAgainstOverlay(t, script(data))
	})
}

func randomScript(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	data := make([]byte, 3*(1+r.IntN(60)))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func TestMergeEqualsOverlay(t *testing.T) {
	t.Parallel()
	accepted := 0
	for seed := range uint64(600) {
		if checkAgainstOverlay(t, script(randomScript(seed))) {
			accepted++
		}
	}
	t.Logf("%d of 600 scripts make an image", accepted)
	if accepted < 150 {
		t.Errorf("only %d of 600 scripts make an image", accepted)
	}
}
