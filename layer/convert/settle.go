package convert

import (
	"archive/tar"
	"fmt"
	"strings"
)

// Some readers of eStargz cannot do with a path that comes twice, nor with a
// hard link that comes before its target. Extractors do, so that layers have
// them, and settle writes what they leave on disk: of several entries of one
// path the last, and hard links to what their target was at that point.

// maxReplaced bounds how many directories may be replaced by something else,
// each of which costs a look at all paths.
const maxReplaced = 1000

// output is an entry to write: the data and attributes of an item, or a hard
// link to another path.
type output struct {
	item int    // of the spool
	name string // other than the item's own; "" if it is that
	link string // target of a hard link, other than the item's own
}

// settler goes through the entries of a tar in order.
type settler struct {
	items    []item
	live     map[string]int // by path
	source   []int          // of each item: the one whose inode it is; itself for all but hard links
	dead     []bool
	replaced int
}

// settle returns what to write, in order, such that no path comes twice.
func settle(items []item) ([]output, error) {
	s := &settler{items: items, live: make(map[string]int, len(items)), source: make([]int, len(items)), dead: make([]bool, len(items))}
	for i := range items {
		if err := s.add(i); err != nil {
			return nil, err
		}
	}
	return s.outputs(), nil
}

func (s *settler) add(i int) error {
	it := &s.items[i]
	s.source[i] = i
	if it.kind == tar.TypeLink {
		target, ok := s.live[it.link]
		switch {
		case ok && it.link == it.name:
			s.dead[i] = true // a link to itself changes nothing
			return nil
		case ok:
			s.source[i] = s.source[target]
		}
	}
	if old, ok := s.live[it.name]; ok {
		s.dead[old] = true
		if s.items[old].kind == tar.TypeDir && it.kind != tar.TypeDir {
			if err := s.bury(it.name); err != nil {
				return err
			}
		}
	}
	s.live[it.name] = i
	return nil
}

// bury takes away what was in a directory that is one no longer.
func (s *settler) bury(dir string) error {
	if s.replaced++; s.replaced > maxReplaced {
		return about(dir, fmt.Errorf("%w: more than %d directories are replaced", ErrMalformed, maxReplaced))
	}
	for name, i := range s.live {
		if strings.HasPrefix(name, dir+"/") {
			s.dead[i] = true
			delete(s.live, name)
		}
	}
	return nil
}

// maxChain bounds how many hard links lead to a target that comes later.
const maxChain = 64

// root is the item whose inode i is, now that all have come; a hard link whose
// target is in no entry is its own.
func (s *settler) root(i int) int {
	for range maxChain {
		at := s.source[i]
		if at != i {
			i = at
			continue
		}
		next, ok := s.live[s.items[i].link]
		if s.items[i].kind != tar.TypeLink || !ok || next == i {
			return i
		}
		i = next
	}
	return i
}

// outputs lists what is alive in the order of the tar; hard links to what
// comes later come last.
func (s *settler) outputs() []output {
	e := emitter{settler: s, out: make([]output, 0, len(s.items)), holder: map[int]string{}}
	var late []int
	for i := range s.items {
		if s.dead[i] {
			continue
		}
		src := s.root(i)
		if src > i && !s.dead[src] {
			late = append(late, i)
			continue
		}
		e.emit(i, src)
	}
	for _, i := range late {
		e.emit(i, s.root(i))
	}
	return e.out
}

// emitter collects outputs.
type emitter struct {
	*settler
	out    []output
	holder map[int]string // path of the first to show the inode of an item that is dead
}

func (e *emitter) emit(i, src int) {
	o := output{item: i}
	switch name, held := e.holder[src]; {
	case src == i:
	case !e.dead[src]:
		o.link = e.items[src].name
	case held:
		o.link = name
	default:
		o = output{item: src, name: e.items[i].name}
		e.holder[src] = o.name
	}
	e.out = append(e.out, o)
}
