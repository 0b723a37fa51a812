package layer

import (
	"context"
	"time"
)

// Origin says where the bytes of a read came from.
type Origin uint8

// The origins. A read that needs several counts as the last of them.
const (
	FromStore   Origin = iota
	FromReuse          // another layer's store
	FromNetwork        // the source
)

func (o Origin) String() string { return [...]string{"store", "reuse", "network"}[o] }

// Count is how often something happened, how many bytes it moved, and how long
// somebody waited for it.
type Count struct {
	Count  int64         `json:"count"`
	Bytes  int64         `json:"bytes"`
	Waited time.Duration `json:"waited_ns"`
}

// Stats are totals since New. Compressed bytes are the blob's.
type Stats struct {
	Reads    [3]Count   // by Origin; bytes of the address space
	Requests int64      // for byte ranges
	Demanded int64      // compressed bytes of spans fetched because somebody waited
	Guessed  int64      // likewise, on a guess beside a read
	Fetched  int64      // likewise, by Prefetch
	Filled   int64      // likewise, by Fill
	Reused   int64      // compressed bytes of spans that another layer's store had
	Touched  int64      // compressed bytes of the spans that somebody has read
	Unused   int64      // compressed bytes guessed or prefetched that nobody has read so far
	Again    int64      // spans that proved wrong and were asked for again
	Slowest  []SlowRead // at most ten, the slowest first
}

// SlowRead is a read that took long.
type SlowRead struct {
	At     time.Time
	Took   time.Duration
	Addr   int64
	Size   int64
	Origin Origin
}

// Stats returns the totals so far.
func (l *Layer) Stats() Stats { return Stats{} }

// Touch is the first time that somebody read from a span.
type Touch struct {
	Span int
	At   time.Time
}

// Touches returns the spans that have been read from, in the order of the
// first time.
func (l *Layer) Touches() []Touch { return nil }

// Note is told where the bytes of one read came from: those that are not
// counted here were in the store.
type Note struct {
	Reused, Fetched int64 // bytes of the address space
}

type noteKey struct{}

// WithNote returns a context that makes a ReadAt tell n, before it returns.
func WithNote(ctx context.Context, n *Note) context.Context {
	return context.WithValue(ctx, noteKey{}, n)
}
