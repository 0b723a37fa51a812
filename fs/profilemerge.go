package fs

import (
	"cmp"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/manifest"
)

// Weights, in thousandths. Each run halves the way of a touch to 1000 if it has
// it, and to 0 if not: after two runs without it a touch is not replayed, after
// four it is forgotten, and one that every other run has is replayed after those.
const (
	newWeight    = manifest.MaxProfileWeight / 2
	replayWeight = 400 // from which on a touch is replayed
	leastWeight  = 100 // below which it is forgotten
)

// mergeProfile returns what p, of earlier runs or nil, and a run together say.
// A run that has read nothing changes nothing, and equal runs change nothing but
// their number. Neither argument is changed.
func mergeProfile(p, run *manifest.Profile) *manifest.Profile {
	if len(run.Touches) == 0 {
		return p
	}
	if p == nil || len(p.Touches) == 0 {
		return run
	}
	m := merging{
		out: &manifest.Profile{
			Image: run.Image, Entrypoint: run.Entrypoint, Updated: run.Updated,
			Runs: min(p.Runs+run.Runs, manifest.MaxProfileRuns), // p may be from anywhere
		},
	}
	if p.Updated.After(run.Updated) {
		m.out.Updated = p.Updated
	}
	m.run(run, p)
	m.fade(p)
	return m.done()
}

// merging is one mergeProfile.
type merging struct {
	out   *manifest.Profile
	rows  map[digest.Digest]int // of out.Layers
	ranks []ranked
	kept  []bool // parallel to the touches of the earlier profile: whether the run has something of them
}

// ranked is a touch with its place in the profile it is from, which decides
// among those of one millisecond.
type ranked struct {
	manifest.ProfileTouch
	rank int
}

func (m *merging) row(l manifest.ProfileLayer) int {
	row, ok := m.rows[l.Digest]
	if !ok {
		if m.rows == nil {
			m.rows = map[digest.Digest]int{}
		}
		row = len(m.out.Layers)
		m.rows[l.Digest] = row
		m.out.Layers = append(m.out.Layers, l)
	}
	return row
}

// run takes in the touches of the run. How it has cut the layers is how they
// are cut from now on: what p says of the same addresses gives only its weight.
func (m *merging) run(run, p *manifest.Profile) {
	places := placesOf(p)
	m.kept = make([]bool, len(p.Touches))
	for rank, t := range run.Touches {
		l := run.Layers[t.Layer]
		weight, at := 0, int64(-1)
		for _, i := range places.overlapping(l, t) {
			m.kept[i] = true
			old := &p.Touches[i]
			weight = max(weight, old.Weight)
			if at < 0 || old.At < at {
				at = old.At
			}
		}
		if at >= 0 {
			t.At = (t.At + at) / 2
		}
		t.Weight = newWeight
		if weight > 0 {
			t.Weight = (weight + manifest.MaxProfileWeight + 1) / 2
		}
		t.Layer = m.row(l)
		m.ranks = append(m.ranks, ranked{t, rank})
	}
}

// fade takes in what the run has not read, as far as it is not forgotten.
func (m *merging) fade(p *manifest.Profile) {
	for rank, t := range p.Touches {
		t.Weight /= 2
		l := p.Layers[t.Layer]
		if row, ok := m.rows[l.Digest]; ok && m.out.Layers[row].Space != l.Space {
			continue // the layer is indexed in another way now
		}
		if m.kept[rank] || t.Weight < leastWeight {
			continue
		}
		t.Layer = m.row(l)
		m.ranks = append(m.ranks, ranked{t, rank})
	}
}

func (m *merging) done() *manifest.Profile {
	slices.SortStableFunc(m.ranks, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.rank, b.rank))
	})
	for _, t := range m.ranks[:min(len(m.ranks), manifest.MaxProfileTouches)] {
		m.out.Touches = append(m.out.Touches, t.ProfileTouch)
	}
	return m.out
}

// places finds touches of a profile by address.
type places struct {
	p      *manifest.Profile
	layers map[digest.Digest][]int // touches by address
}

func placesOf(p *manifest.Profile) places {
	x := places{p, map[digest.Digest][]int{}}
	for i, t := range p.Touches {
		d := p.Layers[t.Layer].Digest
		x.layers[d] = append(x.layers[d], i)
	}
	for _, list := range x.layers {
		slices.SortFunc(list, func(a, b int) int { return cmp.Compare(p.Touches[a].Addr, p.Touches[b].Addr) })
	}
	return x
}

// overlapping returns the touches that share addresses with t, of layer l.
func (x places) overlapping(l manifest.ProfileLayer, t manifest.ProfileTouch) []int {
	list := x.layers[l.Digest]
	if len(list) == 0 || x.p.Layers[x.p.Touches[list[0]].Layer].Space != l.Space {
		return nil
	}
	first := sort.Search(len(list), func(k int) bool {
		o := &x.p.Touches[list[k]]
		return o.Addr+o.Len > t.Addr
	})
	n := first
	for n < len(list) && x.p.Touches[list[n]].Addr < t.Addr+t.Len {
		n++
	}
	return list[first:n]
}
