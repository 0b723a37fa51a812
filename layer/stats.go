package layer

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
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

// Stats are totals since New. Compressed bytes are the blob's; spans of a layer
// that cannot be entered count in proportion to their length.
type Stats struct {
	// Reads that succeeded, by Origin. Bytes are of the address space, each
	// where it came from; what was in the store was not waited for unless
	// another process had to bring it there.
	Reads    [3]Count
	Requests int64      // of the source, be they for the whole of it
	Demanded int64      // compressed bytes of spans fetched because somebody waited
	Guessed  int64      // likewise, on a guess beside a read, or since they lay between such
	Fetched  int64      // likewise, by Prefetch
	Filled   int64      // likewise, by Fill
	Between  int64      // compressed bytes between spans that were read for nothing
	Reused   int64      // compressed bytes of spans that another layer's store had
	Touched  int64      // compressed bytes of the spans that somebody has read
	Unused   int64      // compressed bytes guessed or prefetched that nobody has read so far
	Again    int64      // how often a span proved wrong and was asked for again
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

// why a span is fetched.
type why uint8

const (
	demanded why = iota
	guessedAt
	prefetched
	filled
	whys // how many there are
)

// counters are what Stats are made of.
type counters struct {
	reads                            [3]tallied
	requests, between, reused, again atomic.Int64
	fetched                          [whys]atomic.Int64

	mu      sync.Mutex // guards what follows
	slowest []SlowRead
}

// tallied is a Count that is counting.
type tallied struct{ count, bytes, waited atomic.Int64 }

// Stats returns the totals so far.
func (l *Layer) Stats() Stats {
	c := &l.counters
	s := Stats{
		Requests: c.requests.Load(),
		Demanded: c.fetched[demanded].Load(), Guessed: c.fetched[guessedAt].Load(),
		Fetched: c.fetched[prefetched].Load(), Filled: c.fetched[filled].Load(),
		Between: c.between.Load(), Reused: c.reused.Load(), Again: c.again.Load(),
	}
	for o := range c.reads {
		r := &c.reads[o]
		s.Reads[o] = Count{Count: r.count.Load(), Bytes: r.bytes.Load(), Waited: time.Duration(r.waited.Load())}
	}
	s.Touched, s.Unused = l.touches.sums()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Slowest = slices.Clone(c.slowest)
	return s
}

// warm counts a read that found all in the store.
func (c *counters) warm(size int64) {
	r := &c.reads[FromStore]
	r.count.Add(1)
	r.bytes.Add(size)
}

// cold counts a read that did not, and of which n came from elsewhere.
func (c *counters) cold(addr, size int64, start time.Time, n Note) {
	r := SlowRead{At: start, Took: time.Since(start), Addr: addr, Size: size, Origin: n.origin()}
	c.reads[r.Origin].count.Add(1)
	c.reads[r.Origin].waited.Add(int64(r.Took))
	c.reads[FromStore].bytes.Add(size - n.Reused - n.Fetched)
	c.reads[FromReuse].bytes.Add(n.Reused)
	c.reads[FromNetwork].bytes.Add(n.Fetched)

	c.mu.Lock()
	defer c.mu.Unlock()
	at, _ := slices.BinarySearchFunc(c.slowest, r.Took, func(s SlowRead, took time.Duration) int {
		if s.Took >= took {
			return -1
		}
		return 1
	})
	if at == maxSlowest {
		return
	}
	c.slowest = slices.Insert(c.slowest, at, r)
	c.slowest = c.slowest[:min(len(c.slowest), maxSlowest)]
}

const maxSlowest = 10 // reads that Stats tells of

// cost returns the compressed bytes that span i counts as.
func (x *Index) cost(i int) int64 {
	if x.seekable() {
		return x.Spans[i].CLen
	}
	return x.part(i)
}

// Note is told where the bytes of reads came from: those that are not counted
// here were in the store.
type Note struct {
	Reused, Fetched int64 // bytes of the address space
}

// add counts n bytes that came from o.
func (n *Note) add(o Origin, size int64) {
	switch o {
	case FromReuse:
		n.Reused += size
	case FromNetwork:
		n.Fetched += size
	case FromStore:
	}
}

func (n *Note) origin() Origin {
	switch {
	case n.Fetched > 0:
		return FromNetwork
	case n.Reused > 0:
		return FromReuse
	}
	return FromStore
}

type noteKey struct{}

// WithNote returns a context that makes each ReadAt add to n before it returns.
// Such reads must not be concurrent.
func WithNote(ctx context.Context, n *Note) context.Context {
	return context.WithValue(ctx, noteKey{}, n)
}

// noteIn returns the note of ctx, nil if there is none.
func noteIn(ctx context.Context) *Note {
	n, _ := ctx.Value(noteKey{}).(*Note)
	return n
}
