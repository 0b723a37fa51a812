package mention

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
)

const (
	minWord     = 2         // bytes of a word that may be a file's name
	maxWord     = 255       // likewise; NAME_MAX
	maxText     = 256 << 10 // bytes of a text that are looked at
	maxELF      = 4 << 20   // likewise, of an ELF file
	maxMentions = 4096      // of one text
	maxMeant    = 96        // of one text; one with more is a list of what there is
	maxSame     = 64        // files of one stem; a word that so many are called by means none of them
	// sameTree is how many directories a tree that belongs together has above it.
	sameTree = 5
)

// How a file is named, which tells how likely it is meant.
type How uint8

// The ways, the likeliest last.
const (
	Listed    How = iota // in whatever way, among very many
	Nearest              // by a word that others are called by, too
	Only                 // by a word that no other file of its kind is called by
	Qualified            // with the name of its directory
	Beside               // by a word that is its name, in the directory of the text
	Own                  // like Only, in a tree that belongs together
	Needed               // as a library: by an ELF file, or likely in another way
)

// Hows is the number of ways.
const Hows = int(Needed) + 1

// Mention is a file that a text names.
type Mention struct {
	ID  uint64
	How How
}

// Text is what is looked through.
type Text struct {
	In, Name string // directory and name of its file
	Bytes    []byte
}

var seed = maphash.MakeSeed()

func hash(s string) uint64      { return maphash.String(seed, s) }
func hashBytes(b []byte) uint64 { return maphash.Bytes(seed, b) }

// Find returns the files that t mentions, the likeliest first. It may be called
// concurrently.
func (d *Dictionary) Find(t Text) []Mention {
	stem, rest, _ := strings.Cut(t.Name, ".")
	s := search{
		d: d, in: made(t.In), stem: hash(stem), kind: kindOf(rest),
		elf:   bytes.HasPrefix(t.Bytes, []byte("\x7fELF")),
		found: make(map[uint64]How),
	}
	if s.elf {
		s.needs(t.Bytes[:min(len(t.Bytes), maxELF)])
	} else {
		s.runs(t.Bytes[:min(len(t.Bytes), maxText)])
	}
	out := make([]Mention, 0, len(s.found))
	for id, how := range s.found {
		if len(s.found) > maxMeant {
			how = Listed
		}
		out = append(out, Mention{id, how})
	}
	slices.SortFunc(out, func(a, b Mention) int {
		return cmp.Or(cmp.Compare(b.How, a.How), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// runs looks at all runs of bytes that join.
func (s *search) runs(text []byte) {
	for len(text) > 0 && len(s.found) < maxMentions {
		n := 0
		for n < len(text) && joins[text[n]] {
			n++
		}
		if n >= minWord {
			s.run(text[:n])
		}
		for n < len(text) && !joins[text[n]] {
			n++
		}
		text = text[n:]
	}
}

// needs looks at the runs of an ELF file that a library's name is in.
func (s *search) needs(text []byte) {
	for len(s.found) < maxMentions {
		at := bytes.Index(text, []byte(".so"))
		if at < 0 {
			return
		}
		from, to := at, at
		for from > 0 && joins[text[from-1]] {
			from--
		}
		for to < len(text) && joins[text[to]] {
			to++
		}
		s.run(text[from:to])
		text = text[to:]
	}
}

// joins tells the bytes of words, and those that join words to a path or a dotted
// name; parts, which those are.
var joins, parts = classes()

func classes() (joins, parts [256]bool) {
	for c := range 256 {
		switch b := byte(c); {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '_', b == '-', b == '+':
			joins[c] = true
		case b == '.', b == '/', b == ':':
			joins[c], parts[c] = true, true
		}
	}
	return joins, parts
}

// search is a Find under way.
type search struct {
	d     *Dictionary
	in    string
	stem  uint64
	kind  uint32
	elf   bool
	found map[uint64]How
}

// run looks at words that are joined.
func (s *search) run(run []byte) {
	parent := uint64(0)
	for len(run) > 0 {
		n := 0
		for n < len(run) && !parts[run[n]] {
			n++
		}
		word, rest := run[:n], run[n:]
		for len(rest) > 0 && parts[rest[0]] {
			rest = rest[1:]
		}
		if n >= minWord && n <= maxWord {
			// What encodes the word may leave a letter behind it.
			if !s.word(word, rest, parent) && len(rest) == 0 && n > minWord {
				s.word(word[:n-1], nil, parent)
			}
			parent = hashBytes(word)
		}
		run = rest
	}
}

// word looks for the files that are called by a word, which a parent and a rest
// surround, and reports whether there are any.
func (s *search) word(word, rest []byte, parent uint64) bool {
	stem := hashBytes(word)
	files := s.d.stems(stem)
	if stem == s.stem {
		return true // what it was made of, mostly
	}
	if len(files) == 0 || len(files) > maxSame {
		return len(files) > 0
	}
	kinds := s.loadable(files, rest)
	best, how, near := -1, Nearest, -1
	single := alone(files, kinds)
	for i := range files {
		f := &files[i]
		if !slices.Contains(kinds, f.kind) {
			continue
		}
		dir := &s.d.dirs[f.dir]
		common := commonDirs(s.in, dir.path)
		h := Nearest
		switch {
		case parent != 0 && dir.name == parent:
			h = Qualified
		case single && common >= sameTree:
			h = Own
		case dir.path == s.in:
			h = Beside
		case single:
			h = Only
		}
		if best < 0 || choice[h] > choice[how] || h == how && common > near {
			best, how, near = i, h, common
		}
	}
	if best < 0 {
		return true
	}
	if _, library := s.d.libraries[files[best].kind]; s.elf || library && how >= Qualified {
		how = Needed
	}
	s.note(files[best].id, how)
	return true
}

// choice says which of several files a word means: one that is spelt in full,
// however near others are.
var choice = [Hows]uint8{Nearest: 0, Only: 1, Beside: 2, Own: 3, Qualified: 4}

func (s *search) note(id uint64, how How) {
	if old, ok := s.found[id]; !ok || how > old {
		s.found[id] = how
	}
}

// loadable returns the kinds of those files that the text's program could mean:
// such as the text is, else what the rest of the name says, else libraries.
func (s *search) loadable(files []file, rest []byte) (kinds []uint32) {
	suffix := kindOf(string(rest[:min(len(rest), maxWord)]))
	for _, kind := range []uint32{s.kind, suffix} {
		if slices.ContainsFunc(files, func(f file) bool { return f.kind == kind }) {
			return []uint32{kind}
		}
	}
	for _, f := range files {
		if _, ok := s.d.libraries[f.kind]; ok && !s.elf && !slices.Contains(kinds, f.kind) {
			kinds = append(kinds, f.kind)
		}
	}
	return kinds
}

// alone reports whether one of the files only is of the kinds.
func alone(files []file, kinds []uint32) bool {
	n := 0
	for i := range files {
		if slices.Contains(kinds, files[i].kind) {
			n++
		}
	}
	return n == 1
}

// commonDirs returns how many leading directories two paths share.
func commonDirs(a, b string) (n int) {
	for a != "" && b != "" {
		x, restA, _ := strings.Cut(a, "/")
		y, restB, _ := strings.Cut(b, "/")
		if x != y {
			break
		}
		n++
		a, b = restA, restB
	}
	return n
}
