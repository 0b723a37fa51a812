package fs

import (
	"cmp"
	"math/rand/v2"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/manifest"
)

// touches are layer, address, length, time and weight each.
type touches [][5]int64

func touchesOf(p *manifest.Profile) touches {
	var out touches
	for _, t := range p.Touches {
		out = append(out, [5]int64{int64(t.Layer), t.Addr, t.Len, t.At, int64(t.Weight)})
	}
	return out
}

// runOf is a run that has read from layers a and b; a weight of 0 is a full one.
func runOf(list touches) *manifest.Profile {
	p := &manifest.Profile{Image: digest.FromString("image"), Runs: 1, Updated: time.Unix(1, 0).UTC()}
	for _, t := range list {
		p.Touches = append(p.Touches, manifest.ProfileTouch{
			Layer: int(t[0]), Addr: t[1], Len: t[2], At: t[3], Weight: cmp.Or(int(t[4]), manifest.MaxProfileWeight),
		})
	}
	for _, name := range []string{"a", "b"} {
		p.Layers = append(p.Layers, manifest.ProfileLayer{Digest: digest.FromString(name), Space: 1 << 30})
	}
	return p
}

func TestMergeProfile(t *testing.T) {
	t.Parallel()
	const full = manifest.MaxProfileWeight
	for _, tc := range []struct {
		name           string
		before, latest touches
		want           touches
	}{
		{"the first run", nil, touches{{0, 0, 10, 0, full}}, touches{{0, 0, 10, 0, full}}},
		{"an empty run", touches{{0, 0, 10, 5, 300}}, nil, touches{{0, 0, 10, 5, 300}}},
		{
			"the same again",
			touches{{0, 0, 10, 5, full}, {1, 0, 10, 5, full}},
			touches{{0, 0, 10, 5, full}, {1, 0, 10, 5, full}},
			touches{{0, 0, 10, 5, full}, {1, 0, 10, 5, full}},
		},
		{
			"in another order",
			touches{{0, 0, 10, 0, full}, {0, 10, 10, 8, full}},
			touches{{0, 10, 10, 0, full}, {0, 0, 10, 4, full}},
			touches{{0, 0, 10, 2, full}, {0, 10, 10, 4, full}},
		},
		{
			"something more",
			touches{{0, 0, 10, 0, full}},
			touches{{0, 0, 10, 0, full}, {0, 20, 10, 7, full}},
			touches{{0, 0, 10, 0, full}, {0, 20, 10, 7, newWeight}},
		},
		{
			"something less",
			touches{{0, 0, 10, 0, full}, {0, 20, 10, 7, full}},
			touches{{0, 0, 10, 0, full}},
			touches{{0, 0, 10, 0, full}, {0, 20, 10, 7, full / 2}},
		},
		{"forgotten", touches{{0, 0, 10, 0, full}, {0, 20, 10, 7, 2*leastWeight - 1}}, touches{{0, 0, 10, 0, full}}, touches{{0, 0, 10, 0, full}}},
		{
			"cut otherwise",
			touches{{0, 0, 10, 4, full}, {0, 10, 10, 2, 500}, {0, 30, 10, 9, full}},
			touches{{0, 5, 20, 0, full}},
			touches{{0, 5, 20, 1, full}, {0, 30, 10, 9, full / 2}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, run := runOf(tc.before), runOf(tc.latest)
			got := mergeProfile(p, run)
			if d := diff.Diff(tc.want, touchesOf(got)); d != "" {
				t.Error(d)
			}
			if len(tc.before) > 0 && len(tc.latest) > 0 && got.Runs != 2 {
				t.Errorf("%d runs", got.Runs)
			}
			if _, err := got.Encode(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A layer that is indexed in another way has other addresses: those of earlier
// runs mean nothing any more.
func TestMergeAnotherSpace(t *testing.T) {
	t.Parallel()
	p, run := runOf(touches{{0, 0, 10, 0, 0}, {1, 0, 10, 1, 0}}), runOf(touches{{0, 0, 10, 0, 0}})
	run.Layers[0].Space++
	got := mergeProfile(p, run)
	want := touches{{0, 0, 10, 0, newWeight}, {1, 0, 10, 1, manifest.MaxProfileWeight / 2}}
	if d := diff.Diff(want, touchesOf(got)); d != "" {
		t.Error(d)
	}
	if got.Layers[0].Space != run.Layers[0].Space {
		t.Errorf("%+v", got.Layers)
	}
}

// Whatever is merged can be written, and is within the limits.
func TestMergeAnything(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var p *manifest.Profile
		for range 20 {
			run := runOf(nil)
			at := int64(0)
			next := [2]int64{} // so that they do not overlap
			for range r.IntN(40) {
				row := r.IntN(2)
				next[row] += r.Int64N(30)
				n := 1 + r.Int64N(30)
				run.Touches = append(run.Touches, manifest.ProfileTouch{Layer: row, Addr: next[row], Len: n, At: at, Weight: manifest.MaxProfileWeight})
				next[row] += n
				at += r.Int64N(5)
			}
			if r.IntN(3) == 0 {
				run.Layers[0].Space--
			}
			if p = mergeProfile(p, run); p == nil {
				continue // nothing was read yet
			}
			if _, err := p.Encode(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		equal := *p
		equal.Runs = 1
		for i := range equal.Touches {
			equal.Touches[i].Weight = manifest.MaxProfileWeight
		}
		first := mergeProfile(p, &equal)
		second := mergeProfile(first, &equal)
		second.Runs = first.Runs
		if d := diff.Diff(first, second); d != "" {
			t.Fatalf("seed %d: equal runs change something: %s", seed, d)
		}
	}
}

func TestDecay(t *testing.T) {
	t.Parallel()
	both := func() *manifest.Profile { return runOf(touches{{0, 0, 10, 0, 0}, {0, 10, 10, 1, 0}}) }
	one := func() *manifest.Profile { return runOf(touches{{0, 0, 10, 0, 0}}) }
	weight := func(p *manifest.Profile) int {
		for _, t := range p.Touches {
			if t.Addr == 10 {
				return t.Weight
			}
		}
		return 0
	}
	p := both()
	for i, want := range []bool{true, false, false} {
		if p = mergeProfile(p, one()); (weight(p) >= replayWeight) != want {
			t.Errorf("after %d runs without it: weight %d", i+1, weight(p))
		}
	}
	if p = mergeProfile(p, one()); weight(p) != 0 {
		t.Errorf("it is not forgotten: %d", weight(p))
	}
	for range 10 {
		p = mergeProfile(mergeProfile(p, one()), both())
	}
	if weight(p) < replayWeight {
		t.Errorf("every other run has it: %d", weight(p))
	}
	if p.Runs != 25 {
		t.Errorf("%d runs", p.Runs)
	}
}

// TestMergeManyRuns: what a profile from elsewhere says of its runs keeps nobody
// from adding one.
func TestMergeManyRuns(t *testing.T) {
	t.Parallel()
	image := digest.FromString("image")
	one := func(runs int) *manifest.Profile {
		return &manifest.Profile{
			Image: image, Runs: runs, Updated: time.Unix(100, 0).UTC(),
			Layers:  []manifest.ProfileLayer{{Digest: digest.FromString("layer"), Space: 100}},
			Touches: []manifest.ProfileTouch{{Len: 10, Weight: manifest.MaxProfileWeight}},
		}
	}
	if _, err := mergeProfile(one(manifest.MaxProfileRuns), one(1)).Encode(); err != nil {
		t.Error(err)
	}
}
