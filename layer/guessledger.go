package layer

import "sync"

// Guesses that are open cost at most slack and a share of what was touched:
// neighbours stop early, so that there is something left for readers whose course
// is known, one of whom may be on its way to a long span.
const (
	nearSlack, nearShare     = 384 << 10, 20 // bytes; hundredths
	toldSlack, toldShare     = 192 << 10, 15 // bytes; hundredths
	courseSlack, courseShare = 2 << 20, 25   // bytes; hundredths
)

// ledger bounds what guesses cost all layers of a process: the compressed bytes
// that were fetched on a guess and not touched since. It may be used
// concurrently.
type ledger struct {
	mu      sync.Mutex // guards what follows
	touched int64      // bytes of spans that were read
	open    int64      // bytes of guesses that were not read so far
}

// account is what a guess is founded on.
type account int

const (
	near    account = iota // it lies near what is read
	hearsay                // what is read mentions it
	course                 // a reader is on its way to it
)

func (a account) limit(touched int64) int64 {
	switch a {
	case near:
		return nearSlack + touched*nearShare/100
	case hearsay:
		return toldSlack + touched*toldShare/100
	case course:
	}
	return courseSlack + touched*courseShare/100
}

// allow returns how many bytes may be guessed now.
func (b *ledger) allow(a account) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(a.limit(b.touched)-b.open, 0)
}

// load returns how much of what may be guessed is open, from 0 to 1.
func (b *ledger) load(a account) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return min(float64(b.open)/float64(a.limit(b.touched)), 1)
}

// spend takes note of n bytes guessed, or reports false if they are more than
// may be.
func (b *ledger) spend(a account, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > a.limit(b.touched)-b.open {
		return false
	}
	b.open += n
	return true
}

// used takes note of n bytes touched that were no guess.
func (b *ledger) used(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touched += n
}

// repaid takes note of n bytes touched that were a guess.
func (b *ledger) repaid(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touched += n
	b.open -= n
}

// unspent takes back a guess that was not fetched.
func (b *ledger) unspent(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open -= n
}
