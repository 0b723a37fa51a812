package layer

import (
	"cmp"
	"math"
	"slices"
)

// Found by the simulator, see TestSimulate. Half or twice of any changes little.
const (
	nearFamilies = 24      // families of a kind on each side that are looked at
	nearOwn      = 512     // spans on each side in the same family that are looked at
	nearOthers   = 64      // spans of another family that are
	nearSight    = 4       // of them that tell how many are read there
	nearFall     = 16      // families away at which a guess is worth half
	nearWeight   = 3       // guesses that what is known of a wider circle counts as
	nearOpen     = 0.3     // of a guess that proved wrong, which one counts as that is open
	nearCost     = 256     // bytes that a span costs beside its own
	nearPrice    = 5 << 10 // bytes that may be wasted for a guess that comes true, when nothing is open
	nearTrust    = 0.5     // of that, which may be wasted more for each span of the family that was read
	nearTrusted  = 4       // spans of which that holds

	// What is expected before anything is known: of what is left of a family, and
	// that a family is read from which is beside another.
	usualFamily, usualKind = 0.5, 0.2
)

// tally counts guesses, or what is as good.
type tally struct{ made, right float64 }

// chance is what to expect of the next one, given what a wider circle expects.
func (t tally) chance(wider float64) float64 {
	return (t.right + nearWeight*wider) / (t.made + nearWeight)
}

// family are the spans of one kind in one directory. Programs tend to read much of
// it or nothing.
type family struct {
	spans   []int
	kind    *kind
	at      int // in the kind's families
	touched int // spans
	guessed int // spans that were not touched
}

// kind are the families whose files are called alike, in the order of the blob.
type kind struct {
	families []*family
	read     tally // of families that were read from: how much of what is known of them was
	ventured tally // guesses in families that nobody had read from
}

// neighbours says what lies near what is read and how likely it is wanted, by how
// guesses in the same family, and in families of the same kind, turned out.
type neighbours struct {
	places []place
	family []*family // by span
}

func newNeighbours(places []place) neighbours {
	type key struct{ dir, kind uint32 }
	n := neighbours{places: places, family: make([]*family, len(places))}
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
	return n
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
	t := m.tally()
	return t.right / t.made
}

func (m *family) tally() tally {
	return tally{made: float64(m.touched) + nearOpen*float64(m.guessed), right: float64(m.touched)}
}

// chance returns how likely it is that what is left of a family is read, beside
// which the family at another place of the kind was read from.
func (m *family) chance(from int) float64 {
	wider := m.kind.read.chance(usualFamily)
	if m.touched == 0 {
		away := max(m.at-from, from-m.at)
		wider *= m.kind.chanceOf(m.at) * nearFall / float64(nearFall+away)
	}
	return m.tally().chance(wider)
}

// chanceOf returns how likely it is that a family will be read from, by those
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
	return t.chance(k.ventured.chance(usualKind))
}

// candidate is a neighbour that may be guessed.
type candidate struct {
	span  int
	price float64 // bytes expected to be wasted for a guess that comes true
}

// neighboursLocked guesses neighbours of what was touched, the cheapest ones
// first, for as long as they are worth it and at most a round trip's bytes.
func (f *forecast) neighboursLocked(r *reading) []int {
	var all []candidate
	seen := make(map[*family]bool, len(f.fresh))
	for _, i := range f.fresh {
		if m := f.near.family[i]; !seen[m] {
			seen[m] = true
			all = f.aroundLocked(all, m, i)
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.price, b.price), cmp.Compare(a.span, b.span)) })
	return f.pickLocked(r, all, r.link.product())
}

// aroundLocked appends what is left of the family of span at, and of those beside
// it, if it might be worth it.
func (f *forecast) aroundLocked(all []candidate, own *family, at int) []candidate {
	near := own.kind.families[max(own.at-nearFamilies, 0):min(own.at+nearFamilies+1, len(own.kind.families))]
	for _, m := range near {
		chance := m.chance(own.at)
		price := (1 - chance) / chance / (1 + nearTrust*float64(min(m.touched, nearTrusted)))
		spans := m.spans[:min(len(m.spans), nearOthers)]
		if m == own {
			k, _ := slices.BinarySearch(m.spans, at)
			spans = m.spans[max(k-nearOwn, 0):min(k+nearOwn, len(m.spans))]
		}
		for _, i := range spans {
			c := candidate{i, price * float64(f.spans[i].CLen+nearCost)}
			if f.state[i] == unknown && c.price <= nearPrice {
				all = append(all, c)
			}
		}
	}
	return all
}

func (f *forecast) pickLocked(r *reading, all []candidate, room int64) []int {
	var picked []int
	for _, c := range all {
		size := f.spans[c.span].CLen
		if size > room || !f.freeLocked(r, c.span) {
			continue
		}
		if c.price > nearPrice*math.Sqrt(1-f.ledger.load(near)) || !f.ledger.spend(near, size) {
			break
		}
		room -= size
		m := f.near.family[c.span]
		f.state[c.span] = guessed
		if m.touched == 0 {
			f.state[c.span] = ventured
			m.kind.ventured.made++
		}
		m.change(0, 1)
		picked = append(picked, c.span)
	}
	return picked
}
