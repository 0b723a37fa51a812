package layer

import (
	"slices"
	"testing"

	"github.com/peelfs/peel/layer/mention"
)

// gossip is a forecast of n files of a size, and mentions of all of them.
func gossip(n int, size int64, how mention.How) (*forecast, []mentioned) {
	f, _ := cast(even(n, size), 1)
	f.rumours, f.heard = new(rumours), make(map[int]told)
	all := make([]mentioned, n)
	for i := range all {
		all[i] = mentioned{i, how, 1}
	}
	return f, all
}

func always(int) bool { return true }

func TestForecastHear(t *testing.T) {
	t.Parallel()
	f, all := gossip(8, 1000, mention.Own)
	f.touched(3)
	spans := f.hear(all, func(i int) bool { return i != 5 })
	if !slices.Equal(spans, []int{0, 1, 2, 4, 6, 7}) || f.ledger.open != 6000 {
		t.Errorf("guessed %v, %d bytes; neither what is there nor what was read", spans, f.ledger.open)
	}
	if again := f.hear(all, func(i int) bool { return i != 5 }); again != nil {
		t.Errorf("guessed again: %v", again)
	}
	if sure, maybe, never := f.certainty(3), f.certainty(4), f.certainty(5); sure != 1 || maybe <= 0 || maybe >= 1 || never != 0 {
		t.Errorf("certain by %v, %v and %v", sure, maybe, never)
	}
	if !f.touched(0) || f.ledger.open != 5000 {
		t.Errorf("a hit leaves %d bytes open", f.ledger.open)
	}
	f.unused(spans)
	if f.ledger.open != 0 || len(f.heard) != 0 || f.touched(1) {
		t.Errorf("what was not fetched leaves %d bytes and %d spans", f.ledger.open, len(f.heard))
	}
}

// However much is mentioned, and however likely it seems, it costs no more than
// is left, and the less is left the less a guess may cost.
func TestForecastHearWithinMeans(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		how  mention.How
		size int64
		some bool
	}{
		{"likely and small", mention.Own, 1000, true},
		{"likely and large", mention.Own, 1 << 20, false},
		{"unlikely", mention.Listed, 1000, false},
		{"a library", mention.Needed, 64 << 10, true},
		{"as large, and none", mention.Own, 64 << 10, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, all := gossip(4000, tc.size, tc.how)
			spans := f.hear(all, always)
			if (len(spans) > 0) != tc.some || len(spans) == len(all) {
				t.Errorf("%d of %d are guessed", len(spans), len(all))
			}
			if n := int64(len(spans)) * tc.size; n != f.ledger.open || n > hearsay.limit(0) {
				t.Errorf("%d bytes are guessed, the ledger has %d of %d", n, f.ledger.open, hearsay.limit(0))
			}
		})
	}
}

// Guesses that prove wrong make the next ones of their kind less likely, and
// those that prove right more.
func TestRumours(t *testing.T) {
	t.Parallel()
	r := new(rumours)
	before := r.chance(mention.Qualified)
	r.change(mention.Qualified, 1000, 0)
	wrong := r.chance(mention.Qualified)
	r.change(mention.Qualified, -1000, 1000)
	right := r.chance(mention.Qualified)
	if before != firstChances[mention.Qualified] || wrong >= before || right <= before || r.chance(mention.Own) != firstChances[mention.Own] {
		t.Errorf("%v, %v when wrong, %v when right", before, wrong, right)
	}
}
