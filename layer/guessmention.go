package layer

import (
	"sync"

	"github.com/peelfs/peel/layer/mention"
)

// Found by the simulator, see TestSimulate, but for the first chances, which are
// what traces of Python, Ruby and Perl came to.
const (
	toldHits   = 128      // guesses that come true, among which what may be wasted is to be divided
	toldMost   = 48 << 10 // bytes that may be wasted for one of these
	needHits   = 3        // likewise, of libraries: they are few, and a program starts with them
	toldWeight = 20       // guesses that the first chances count as
	toldOpen   = 0.1      // of a guess that proved wrong, which one counts as that is open
)

// firstChances are how likely mentions are meant before anything is known of a
// workload.
var firstChances = [mention.Hows]float64{
	mention.Listed: 0.03, mention.Nearest: 0.04, mention.Only: 0.07,
	mention.Qualified: 0.4, mention.Beside: 0.6, mention.Own: 0.5, mention.Needed: 0.8,
}

// told is what is known of a span that was guessed because a file names it.
type told struct {
	how    mention.How
	chance float32
}

// rumours says how likely mentions are meant, by how those before turned out. It
// may be used concurrently.
type rumours struct {
	mu  sync.Mutex // guards how
	how [mention.Hows]struct{ open, right float64 }
}

// chance is what to expect of the next mention of a kind.
func (r *rumours) chance(how mention.How) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &r.how[how]
	return (h.right + toldWeight*firstChances[how]) / (h.right + toldOpen*h.open + toldWeight)
}

// change takes note of guesses that are open, and of those that were right.
func (r *rumours) change(how mention.How, open, right float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.how[how].open += open
	r.how[how].right += right
}

// mentioned is a span that a file names which is read, or will be with a certain
// chance.
type mentioned struct {
	span   int
	how    mention.How
	chance float64 // that the file is read which names it
}

// hear guesses those of the spans that are worth it, and returns them in the
// order given. They are accounted for: whoever does not fetch them calls unused.
func (f *forecast) hear(all []mentioned, missing func(span int) bool) (spans []int) {
	if f.ledger == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beginLocked()
	for _, m := range all {
		if f.state[m.span] != unknown || !missing(m.span) {
			continue
		}
		chance := m.chance * f.rumours.chance(m.how)
		size := f.spans[m.span].CLen + nearCost
		left := float64(f.ledger.allow(hearsay))
		limit := min(left/toldHits, toldMost)
		if m.how == mention.Needed {
			limit = left / needHits
		}
		if (1-chance)/chance*float64(size) > limit || !f.ledger.spend(hearsay, f.spans[m.span].CLen) {
			continue
		}
		f.state[m.span] = rumoured
		f.rumours.change(m.how, 1, 0)
		f.heard[m.span] = told{m.how, float32(chance)}
		spans = append(spans, m.span)
	}
	return spans
}

// certainty is how likely it is that a span is read: it was, or it is a guess
// because a file names it. It is 0 for any other.
func (f *forecast) certainty(span int) float64 {
	if f.ledger == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beginLocked()
	if f.state[span] == touched {
		return 1
	}
	return float64(f.heard[span].chance)
}

// place says what span i holds.
func (f *forecast) place(i int) place {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beginLocked()
	return f.near.places[i]
}
