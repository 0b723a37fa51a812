package layer

import (
	"cmp"
	"slices"
)

const (
	nearFamilies = 24        // families of a kind on each side that are looked at
	nearSight    = 4         // of them that tell how many are read there
	nearCost     = 256       // bytes that a span costs beside its own
	nearFall     = 16        // families away at which a guess is worth half
	nearWeight   = 3         // guesses that what is known of a wider circle counts as
	nearOpen     = 0.3       // of a miss that an open guess counts as
	nearPrice    = 256 << 10 // bytes that may be wasted for a guess that comes true, when nothing is open
)

// relation is how a neighbour relates to the span that is read.
type relation uint8

const (
	sameFile relation = iota
	sameFamily
	sameKind
	relations
)

// usualChance is what is expected of each relation before anything is known.
func (r relation) usualChance() float64 {
	return [relations]float64{sameFile: 0.6, sameFamily: 0.5, sameKind: 0.2}[r]
}

// tally counts guesses.
type tally struct{ made, right float64 }

// chance is what to expect of the next one, given what a wider circle expects.
func (t tally) chance(wider float64) float64 {
	return (t.right + nearWeight*wider) / (t.made + nearWeight)
}

// family are the spans of one kind in one directory, the unit in which programs
// tend to read.
type family struct {
	spans   []int
	kind    *kind
	at      int // in the kind's families
	touched int // spans
	guessed int // spans, not touched
}

// kind are the families whose files are called alike, by their first span.
type kind struct {
	families []*family
	read     tally // of families some of which were touched: how much of what is known of them was
	outcomes [relations]tally
}

// neighbours says what lies near what is read and how likely it is wanted, by how
// guesses of the same relation and kind, and of the same directory, turned out.
type neighbours struct {
	places   []place
	relation []relation // by span, if guessed
	family   []*family  // by span
}

func (n *neighbours) begin(places []place) {
	n.places = places
	n.relation = make([]relation, len(places))
	n.family = make([]*family, len(places))
	type key struct{ dir, kind uint32 }
	families := make(map[key]*family)
	kinds := make(map[uint32]*kind)
	for i, p := range places {
		k := kinds[p.kind]
		if k == nil {
			k = new(kind)
			kinds[p.kind] = k
		}
		m := families[key{p.dir, p.kind}]
		if m == nil {
			m = &family{kind: k, at: len(k.families)}
			families[key{p.dir, p.kind}] = m
			k.families = append(k.families, m)
		}
		m.spans = append(m.spans, i)
		n.family[i] = m
	}
}

// guessed takes note of a guess.
func (n *neighbours) guessed(i int, r relation) {
	n.relation[i] = r
	n.family[i].change(0, 1)
	n.family[i].kind.outcomes[r].made++
}

// forget takes it back.
func (n *neighbours) forget(i int) {
	n.family[i].change(0, -1)
	n.family[i].kind.outcomes[n.relation[i]].made--
}

// came takes note of the first read of a span, which had been guessed or not.
func (n *neighbours) came(i int, guessed bool) {
	m := n.family[i]
	if !guessed {
		m.change(1, 0)
		return
	}
	m.change(1, -1)
	m.kind.outcomes[n.relation[i]].right++
}

// change keeps the sum over the kind's families, each of which counts once however
// large it is.
func (m *family) change(touched, guessed int) {
	m.kind.read.right -= m.share()
	if m.touched == 0 && touched > 0 {
		m.kind.read.made++
	}
	m.touched += touched
	m.guessed += guessed
	m.kind.read.right += m.share()
}

// share returns how much of what is known of the family was touched.
func (m *family) share() float64 {
	if m.touched == 0 {
		return 0
	}
	return float64(m.touched) / (float64(m.touched) + nearOpen*float64(m.guessed))
}

// chance that what is left of a family some of which was read is read, too.
func (m *family) chance(wider float64) float64 {
	return tally{made: float64(m.touched) + nearOpen*float64(m.guessed), right: float64(m.touched)}.chance(wider)
}

func (n *neighbours) relate(i, j int) relation {
	a, b := &n.places[i], &n.places[j]
	switch {
	case a.file != None && a.file == b.file:
		return sameFile
	case a.dir == b.dir:
		return sameFamily
	}
	return sameKind
}

// candidate is a neighbour that may be guessed.
type candidate struct {
	span     int
	relation relation
	price    float64 // bytes expected to be wasted for a guess that comes true
}

// neighboursLocked guesses neighbours of what was touched, the most promising
// ones first, for as long as they are worth it and a round trip's bytes.
func (f *forecast) neighboursLocked(r *reading) []int {
	var all []candidate
	for _, i := range f.fresh {
		all = f.aroundLocked(all, i)
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.price, b.price), cmp.Compare(a.span, b.span)) })
	return f.pickLocked(r, all, r.link.product())
}

// aroundLocked appends the neighbours of span i that may be worth it.
func (f *forecast) aroundLocked(all []candidate, i int) []candidate {
	own := f.near.family[i]
	k := own.kind
	within := k.read.chance(sameFamily.usualChance())
	for at := max(own.at-nearFamilies, 0); at < min(own.at+nearFamilies+1, len(k.families)); at++ {
		m := k.families[at]
		chance := within
		if m.touched == 0 {
			chance *= k.chanceOf(at) * nearFall / float64(nearFall+max(at-own.at, own.at-at))
		}
		chance = m.chance(chance)
		for _, j := range m.spans {
			if f.state[j] == unknown {
				c := candidate{span: j, relation: f.near.relate(i, j), price: (1 - chance) / chance * float64(f.spans[j].CLen+nearCost)}
				if c.price < nearPrice {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// chanceOf returns how likely a family that was not touched will be, by those
// beside it and by what became of such guesses.
func (k *kind) chanceOf(at int) float64 {
	var t tally
	for j := max(at-nearSight, 0); j < min(at+nearSight+1, len(k.families)); j++ {
		switch m := k.families[j]; {
		case m.touched > 0:
			t.right++
			t.made++
		case m.guessed > 0:
			t.made += nearOpen
		}
	}
	return t.chance(k.outcomes[sameKind].chance(sameKind.usualChance()))
}

func (f *forecast) pickLocked(r *reading, all []candidate, room int64) []int {
	var picked []int
	for _, c := range all {
		size := f.spans[c.span].CLen
		if size > room || !f.freeLocked(r, c.span) {
			continue
		}
		left := 1 - f.ledger.load(near)
		if c.price > nearPrice*left*left || !f.ledger.spend(near, size) {
			break
		}
		room -= size
		f.state[c.span] = guessed
		f.near.guessed(c.span, c.relation)
		picked = append(picked, c.span)
	}
	return picked
}
