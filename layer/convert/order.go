package convert

import (
	"path"
)

// order moves the entries that the profile names to the front, each after the
// directories above it and the file that it is a link to, and returns how many
// these are, and which of the profile's paths were found. Everything else
// keeps its order.
func order(outs []output, items []item, profile []string) (sorted []output, first int, found []string) {
	if len(profile) == 0 {
		return outs, 0, nil
	}
	p := &picker{outs: outs, items: items, by: make(map[string]int, len(outs)), picked: make([]bool, len(outs))}
	for i := range outs {
		p.by[p.path(i)] = i
	}
	for _, name := range profile {
		if p.pick(clean(name)) {
			found = append(found, name)
		}
	}
	first = len(p.sorted)
	for i, o := range outs {
		if !p.picked[i] {
			p.sorted = append(p.sorted, o)
		}
	}
	return p.sorted, first, found
}

type picker struct {
	outs   []output
	items  []item
	by     map[string]int
	picked []bool
	sorted []output
}

func (p *picker) path(i int) string {
	if o := p.outs[i]; o.name != "" {
		return o.name
	}
	return p.items[p.outs[i].item].name
}

// pick puts a path next, and reports whether there is an entry of it.
func (p *picker) pick(name string) bool {
	i, ok := p.by[name]
	if !ok || p.picked[i] {
		return ok
	}
	p.picked[i] = true
	if name != "" {
		p.parents(name)
	}
	if link := p.outs[i].link; link != "" {
		p.pick(link)
	}
	p.sorted = append(p.sorted, p.outs[i])
	return true
}

// parents puts the directories above name next, outermost first.
func (p *picker) parents(name string) {
	var above []string
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		above = append(above, dir)
	}
	p.pick("")
	for i := len(above) - 1; i >= 0; i-- {
		p.pick(above[i])
	}
}
