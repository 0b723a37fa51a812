package layer

import "sync"

// ledger bounds what guesses cost all layers of a process: compressed bytes that
// were fetched on a guess and not touched since.
type ledger struct {
	mu       sync.Mutex // guards what follows
	demanded int64      // bytes of spans that were touched
	open     int64      // bytes of guesses that were not, so far
}

// allow returns how many bytes may be guessed now.
func (b *ledger) allow() int64 { return 0 }

// spend takes note of n bytes guessed, or reports false if they are more than
// may be.
func (b *ledger) spend(n int64) bool { return false }

// used takes note of n bytes touched that were no guess.
func (b *ledger) used(n int64) {}

// repaid takes note of n bytes touched that were a guess.
func (b *ledger) repaid(n int64) {}
