package mention

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// maxFiles is how many files a dictionary knows.
const maxFiles = 1 << 20

// file is one that may be mentioned.
type file struct {
	stem uint64 // hash of the name up to its first dot
	id   uint64
	dir  uint32 // in dirs
	kind uint32 // hash of what follows the first dot, versions apart
}

// dir is a directory of files.
type dir struct {
	path string // relative to the root
	name uint64 // hash of its last component that says something
}

// Dictionary knows files by their names.
type Dictionary struct {
	files     []file // by stem
	dirs      []dir
	libraries map[uint32]struct{} // kinds of shared objects
	known     filter
}

// Builder makes a Dictionary.
type Builder struct {
	d    Dictionary
	dirs map[string]uint32
}

// NewBuilder returns one that knows nothing.
func NewBuilder() *Builder {
	b := &Builder{dirs: make(map[string]uint32)}
	b.d.libraries = make(map[uint32]struct{})
	return b
}

// Add adds a file; in is its directory, relative to the root and clean. id is
// what it is called in mentions. Of too many files the last are left out.
func (b *Builder) Add(id uint64, in, name string) {
	stem, rest, _ := strings.Cut(name, ".")
	if len(b.d.files) == maxFiles || len(stem) < minWord {
		return
	}
	in = made(in)
	kind := kindOf(rest)
	if isLibrary(rest) {
		b.d.libraries[kind] = struct{}{}
	}
	b.d.files = append(b.d.files, file{stem: hash(stem), id: id, dir: b.dir(in), kind: kind})
	if stem == "__init__" || stem == "index" { // what a directory's name stands for
		b.d.files = append(b.d.files, file{stem: hash(path.Base(in)), id: id, dir: b.dir(path.Dir(in)), kind: kind})
	}
}

func (b *Builder) dir(in string) uint32 {
	at, ok := b.dirs[in]
	if !ok {
		at = uint32(len(b.d.dirs))
		b.dirs[in] = at
		b.d.dirs = append(b.d.dirs, dir{path: in, name: hash(path.Base(in))})
	}
	return at
}

// Build returns the dictionary of what was added. The builder must not be used
// any more.
func (b *Builder) Build() *Dictionary {
	d := &b.d
	slices.SortFunc(d.files, func(a, b file) int { return cmp.Or(cmp.Compare(a.stem, b.stem), cmp.Compare(a.id, b.id)) })
	d.files = slices.Clip(d.files)
	d.known = newFilter(len(d.files))
	for _, f := range d.files {
		d.known.add(f.stem)
	}
	return d
}

// made returns the directory of what the files in a directory were made of.
func made(in string) string { return strings.TrimSuffix(in, "/__pycache__") }

// isLibrary reports whether a name that ends so is a shared object's.
func isLibrary(rest string) bool {
	rest = strings.TrimRight(rest, ".0123456789")
	return rest == "so" || strings.HasSuffix(rest, ".so")
}

// kindOf is the same for names that end alike, versions apart.
func kindOf(rest string) uint32 {
	kept := make([]byte, 0, 32)
	for part := range strings.SplitSeq(rest, ".") {
		if strings.Trim(part, "0123456789") != "" {
			kept = append(append(kept, '.'), part...)
		}
	}
	return uint32(hash(string(kept)))
}

// filter says quickly that most words are no stems.
type filter []uint64

func newFilter(n int) filter {
	words := 1
	for words*4 < n { // sixteen bits a stem, at least
		words *= 2
	}
	return make(filter, words)
}

func (f filter) add(h uint64) { f[(h>>6)&uint64(len(f)-1)] |= 1 << (h & 63) }

func (f filter) has(h uint64) bool { return f[(h>>6)&uint64(len(f)-1)]&(1<<(h&63)) != 0 }

// stems returns the files with a stem.
func (d *Dictionary) stems(h uint64) []file {
	if len(d.files) == 0 || !d.known.has(h) {
		return nil
	}
	first, ok := slices.BinarySearchFunc(d.files, h, func(f file, h uint64) int { return cmp.Compare(f.stem, h) })
	if !ok {
		return nil
	}
	end := first
	for end < len(d.files) && d.files[end].stem == h {
		end++
	}
	return d.files[first:end]
}
