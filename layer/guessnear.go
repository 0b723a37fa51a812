package layer

import (
	"cmp"
	"slices"
)

const (
	nearScan    = 256  // spans on each side that are looked at
	nearCost    = 512  // bytes that a span costs beside its own
	nearFall    = 64   // spans away at which a guess is worth half
	nearLeast   = 0.08 // chance of a guess
	nearWeight  = 4    // guesses that what is known of a wider circle counts as
	nearPrice   = 1    // of a round trip saved for the same time of the link, when nothing is open
	nearPriceUp = 4    // more, when all that may be is
)

// relation is how a neighbour relates to the span that is read.
type relation uint8

const (
	sameFile relation = iota
	sameFamily
	sameKind
	sameDir
	stranger
	relations
)

// usualChance is what is expected of each relation before anything is known.
func (r relation) usualChance() float64 {
	return [relations]float64{sameFile: 0.6, sameFamily: 0.5, sameKind: 0.3, sameDir: 0.2, stranger: 0.08}[r]
}

// tally counts guesses.
type tally struct{ made, right float64 }

// chance is what to expect of the next one, given what a wider circle expects.
func (t tally) chance(wider float64) float64 {
	return (t.right + nearWeight*wider) / (t.made + nearWeight)
}

type (
	kindred struct {
		relation relation
		kind     uint32
	}
	family struct{ dir, kind uint32 }
)

// neighbours says what lies near what is read and how likely it is wanted, by how
// guesses of the same relation and kind, and of the same directory, turned out.
type neighbours struct {
	places   []place
	relation []relation // by span, if guessed
	kindreds map[kindred]*tally
	families map[family]*tally
}

func (n *neighbours) begin(places []place) {
	n.places = places
	n.relation = make([]relation, len(places))
	n.kindreds = make(map[kindred]*tally)
	n.families = make(map[family]*tally)
}

func (n *neighbours) kindredOf(i int, r relation) *tally {
	return tallyOf(n.kindreds, kindred{r, n.places[i].kind})
}

func (n *neighbours) familyOf(i int) *tally {
	return tallyOf(n.families, family{n.places[i].dir, n.places[i].kind})
}

func tallyOf[K comparable](m map[K]*tally, k K) *tally {
	t := m[k]
	if t == nil {
		t = new(tally)
		m[k] = t
	}
	return t
}

// guessed takes note of a guess.
func (n *neighbours) guessed(i int, r relation) {
	n.relation[i] = r
	n.kindredOf(i, r).made++
	n.familyOf(i).made++
}

// forget takes it back.
func (n *neighbours) forget(i int) {
	n.kindredOf(i, n.relation[i]).made--
	n.familyOf(i).made--
}

// outcome is how a span came to be read.
type outcome int

const (
	missed outcome = iota // not guessed
	hit
)

func (n *neighbours) came(i int, o outcome) {
	family := n.familyOf(i)
	family.right++
	if o == missed {
		family.made++
		return
	}
	n.kindredOf(i, n.relation[i]).right++
}

func (n *neighbours) relate(i, j int) relation {
	a, b := &n.places[i], &n.places[j]
	switch {
	case a.file != None && a.file == b.file:
		return sameFile
	case a.dir == b.dir && a.kind == b.kind:
		return sameFamily
	case a.kind == b.kind:
		return sameKind
	case a.dir == b.dir:
		return sameDir
	}
	return stranger
}

func (n *neighbours) chance(i int, r relation, away int) float64 {
	wide := n.kindredOf(i, r).chance(r.usualChance())
	return n.familyOf(i).chance(wide) * nearFall / float64(nearFall+away)
}

// candidate is a neighbour that may be guessed.
type candidate struct {
	span     int
	relation relation
	chance   float64
	worth    float64 // time that a guess may save for the time it is expected to waste
}

// neighboursLocked guesses neighbours of what was touched, the most promising
// ones first, for as long as they are worth it and a round trip's bytes.
func (f *forecast) neighboursLocked(r *reading) []int {
	product := r.link.product()
	var all []candidate
	for _, i := range f.fresh {
		for j := max(i-nearScan, 0); j < min(i+nearScan+1, len(f.spans)); j++ {
			if f.state[j] != unknown {
				continue
			}
			c := candidate{span: j, relation: f.near.relate(i, j)}
			c.chance = f.near.chance(j, c.relation, int(distance(int64(i), int64(j))))
			c.worth = c.chance * float64(product) / ((1 - c.chance) * float64(f.spans[j].CLen+nearCost))
			if c.chance >= nearLeast && c.worth > nearPrice {
				all = append(all, c)
			}
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(b.worth, a.worth), cmp.Compare(a.span, b.span)) })
	return f.pickLocked(r, all, product)
}

func (f *forecast) pickLocked(r *reading, all []candidate, room int64) []int {
	var picked []int
	for _, c := range all {
		size := f.spans[c.span].CLen
		if size > room || !f.freeLocked(r, c.span) {
			continue
		}
		if c.worth < nearPrice+nearPriceUp*f.ledger.load(near) || !f.ledger.spend(near, size) {
			break
		}
		room -= size
		f.state[c.span] = guessed
		f.near.guessed(c.span, c.relation)
		picked = append(picked, c.span)
	}
	return picked
}
