package layer

// reading is one read, as a forecast needs to know it.
type reading struct {
	addr, size int64
	cold       bool // something of it has to be fetched
	link       Link
	missing    func(span int) bool // neither stored nor under way
}

// guess are missing spans that may be read soon, in blob order.
type guess struct {
	along []int // to be fetched by the requests of what is missing, at the same class
	later []int // to be fetched by requests of class Prefetch, begun at the same time
}

// forecast guesses what a layer's readers will want. The engine calls touched for
// each span that is read the first time, then next for the read, and fetches
// what it says; forecast accounts for it in the ledger. It may be used
// concurrently.
type forecast struct {
	x      *Index
	ledger *ledger // nil: guess nothing
}

func newForecast(x *Index, b *ledger) *forecast { return &forecast{x: x, ledger: b} }

// touched takes note of the first read of a span, and reports whether it had
// been guessed.
func (f *forecast) touched(span int) bool { return false }

// next takes note of a read and says what to fetch on a guess. Its spans are
// accounted for: whoever fetches none of them calls unused.
func (f *forecast) next(r reading) guess { return guess{} }

// unused takes back guesses that were not fetched.
func (f *forecast) unused(spans []int) {}
