package layer

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/flight"
)

// Rechecker is a Store that remembers spans over a reboot of the machine,
// after which nobody can be sure that their bytes reached the disk.
type Rechecker interface {
	// Recheck fills p, as long as the span, with the bytes of a span that is
	// stored but not to be trusted, or reports false if there are none.
	Recheck(span int, addr int64, p []byte) (bool, error)
	// Confirm makes a span present whose bytes turned out to be right.
	Confirm(span int)
}

// Options are what a Layer can be told beside its parts.
type Options struct {
	Log     *logrus.Entry  // nil: say nothing
	Traffic *Traffic       // shared by the layers of a process; nil: one of its own
	Donors  func() []Donor // asked once, when the first span is missing; nil: there are none
}

// Layer is a layer's bytes, fetched and verified as they are read. Its methods
// may be called concurrently; Close ends its goroutines.
type Layer struct {
	x      *Index
	src    metered
	store  Store
	log    *logrus.Entry
	absent func(span int) bool // a span is neither stored nor under way

	traffic  *Traffic
	forecast *forecast
	number   int                      // among the layers of its traffic
	heard    spanSet                  // those whose mentions were looked at
	paths    func() map[uint32]string // of directories, by row
	reuse    reuse
	flights  *flight.Group[int, arrival] // by span: of requests for ranges
	passes   *flight.Group[int, arrival] // likewise: of reading the blob from its beginning
	lastLink atomic.Pointer[Link]
	touches  touches
	counters counters

	sick      sync.Once             // reports a store that takes or gives no bytes
	refusal   atomic.Pointer[error] // of a store that takes no bytes at present
	unshared  sync.Once             // reports a store that takes no claims
	outage    atomic.Pointer[outage]
	served    atomic.Int64 // when a fetch last ended well, Unix nanoseconds
	lies      sync.Map     // span to error: what the index says of it is wrong
	rangeless atomic.Int64 // until when no ranges are asked for, in nanoseconds since 1970
	wholly    sync.Once    // reports a source without ranges
}

// New returns a layer whose index is x, whose blob is src, and whose spans are
// kept in store. It does no I/O. The caller closes the layer before the parts.
func New(x *Index, src Source, store Store, o Options) *Layer {
	if o.Log == nil {
		o.Log = silence()
	}
	if o.Traffic == nil {
		o.Traffic = NewTraffic(TrafficOptions{})
	}
	l := &Layer{
		x: x, store: store,
		log:      o.Log.WithField("layer", x.blob()),
		traffic:  o.Traffic,
		forecast: newForecast(x, o.Traffic.guesses, &o.Traffic.rumours),
		reuse:    reuse{donors: o.Donors},
		flights:  flight.New[int, arrival](flight.Grace),
		// A pass that is given up begins anew with the next reader.
		passes:  flight.New[int, arrival](flight.ToTheEnd),
		touches: newTouches(len(x.Spans)),
		heard:   newSpanSet(len(x.Spans)),
		paths:   sync.OnceValue(x.directories),
	}
	l.traffic.ears.join(l)
	l.src = metered{src, &l.counters.requests}
	l.absent = func(i int) bool { return !l.store.Has(i) && !l.flights.Has(i) }
	return l
}

// metered is a Source whose requests are counted.
type metered struct {
	Source
	requests *atomic.Int64
}

func (c metered) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	c.requests.Add(1)
	return c.Source.ReadRange(ctx, off, n)
}

func silence() *logrus.Entry {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	return logrus.NewEntry(silent)
}

func (x *Index) blob() string { return x.Pool.String(x.Info.Blob) }

// Index returns the layer's index.
func (l *Layer) Index() *Index { return l.x }

// Present returns how many bytes of the address space are in the store. It
// looks at every span.
func (l *Layer) Present() int64 {
	var n int64
	for i := range l.x.Spans {
		if l.store.Has(i) {
			n += l.x.Spans[i].Len
		}
	}
	return n
}

// Close cancels all fetches and waits for them to end. Reads that wait for
// them fail, as do later ones of what is not in the store.
func (l *Layer) Close() error {
	l.traffic.ears.leave(l)
	l.flights.Close()
	l.passes.Close()
	return nil
}

// ReadAt fills p with the verified bytes at addr, from the store if they are
// there. It returns len(p), or 0 and an error: of ctx, of the source, an
// ErrVerify, or io.ErrUnexpectedEOF if the address space ends before p. A
// reader whose ctx ends does not end the fetch it waited for.
func (l *Layer) ReadAt(ctx context.Context, p []byte, addr int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := l.read(ctx, p, addr); err != nil {
		return 0, fmt.Errorf("layer %s: %w", l.x.blob(), err)
	}
	return len(p), nil
}

func (l *Layer) read(ctx context.Context, p []byte, addr int64) error {
	size := int64(len(p))
	if addr < 0 || addr > l.x.Info.AddrSize || size > l.x.Info.AddrSize-addr {
		return fmt.Errorf("addresses [%d, +%d) of %d: %w", addr, size, l.x.Info.AddrSize, io.ErrUnexpectedEOF)
	}
	first, n := spansOf(l.x.Spans, addr, size)
	guessed := l.touch(first, n)
	stored := l.readStored(p, addr, first, n)
	if !stored {
		l.measure()
	}
	var g guess
	if !l.touches.expected(first, n) {
		g = l.guess(reading{addr: addr, size: size, cold: !stored, link: l.link(), missing: l.absent})
	}
	if !stored {
		return l.readCold(ctx, p, addr, g)
	}
	l.counters.warm(size)
	if guessed && !l.forecast.sweeping() {
		l.listen(ctx, first, n)
	}
	l.early(ctx, append(g.along, g.later...))
	return nil
}

// guess returns what may be read after r.
func (l *Layer) guess(r reading) guess {
	if !l.x.seekable() || l.refusal.Load() != nil { // what nobody waits for would be lost
		return guess{}
	}
	g := l.forecast.next(r)
	if len(g.along)+len(g.later) > 0 && l.byPass() {
		l.forecast.unused(g.along)
		l.forecast.unused(g.later)
		return guess{}
	}
	return g
}

// link returns what was known of the source's link when something was fetched
// last.
func (l *Layer) link() Link {
	if k := l.lastLink.Load(); k != nil {
		return *k
	}
	return Link{}
}

// measure asks the source what it knows of its link now.
func (l *Layer) measure() {
	if g, ok := l.src.Source.(Gauge); ok {
		var k Link
		k.RoundTrip, k.Bandwidth = g.Link()
		l.lastLink.Store(&k)
	}
}

// readStored fills p from the spans [first, first+n) if the store has them. A
// store that cannot be read is as good as empty.
func (l *Layer) readStored(p []byte, addr int64, first, n int) bool {
	ok, err := l.store.Read(p, addr, first, n)
	if err != nil {
		l.complain(err)
	}
	return ok && err == nil
}

// missing returns those of the spans [first, first+n) that are not stored.
func (l *Layer) missing(first, n int) []int {
	var spans []int
	for i := first; i < first+n; i++ {
		if !l.store.Has(i) {
			spans = append(spans, i)
		}
	}
	return spans
}

// complain reports a store that does not take or give bytes. Reads go on
// without it.
func (l *Layer) complain(err error) {
	l.sick.Do(func() {
		l.log.WithError(err).Warn("cannot use the store; reading on without keeping what is fetched")
	})
}
