package layer

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

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
	x     *Index
	src   Source
	store Store
	log   *logrus.Entry

	streams   streams
	reuse     reuse
	flights   *flight.Group[int, []byte] // by span: of requests for ranges
	passes    *flight.Group[int, []byte] // likewise: of reading the blob from its beginning
	memory    *semaphore.Weighted        // bytes of spans on their way, see reserve
	decoders  *semaphore.Weighted
	sick      sync.Once             // reports a store that takes or gives no bytes
	refusal   atomic.Pointer[error] // the last one of a store that took no bytes
	unshared  sync.Once             // reports a store that takes no claims
	outage    atomic.Pointer[outage]
	served    atomic.Int64 // when a fetch last ended well, Unix nanoseconds
	lies      sync.Map     // span to error: what the index says of it is wrong
	rangeless atomic.Int64 // until when no ranges are asked for, in nanoseconds since 1970
	wholly    sync.Once    // reports a source without ranges
}

// outage is a source that used up its patience not long ago.
type outage struct {
	err   error
	until time.Time
}

const (
	longWait  = 2 * time.Second // what a fetch may take that nobody minds repeating
	outageFor = 2 * time.Second // after a longer one that failed, reads fail at once
)

// New returns a layer whose index is x, whose blob is src, and whose spans are
// kept in store. It does no I/O. The caller closes the layer before the parts.
func New(x *Index, src Source, store Store, o Options) *Layer {
	if o.Log == nil {
		o.Log = silence()
	}
	return &Layer{
		x: x, src: src, store: store,
		log:     o.Log.WithField("layer", x.blob()),
		reuse:   reuse{donors: o.Donors},
		flights: flight.New[int, []byte](flight.Grace),
		// A pass that is given up begins anew with the next reader.
		passes:   flight.New[int, []byte](flight.ToTheEnd),
		memory:   semaphore.NewWeighted(maxMemory),
		decoders: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
	}
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
	stored := l.readStored(p, addr, first, n)
	ahead := l.missing(l.streams.advance(l.x.Spans, addr, size))
	switch {
	case !stored:
		return l.readCold(ctx, p, addr, ahead)
	case len(ahead) > 0 && !l.byPass():
		// Nobody waits for this, so nobody cares how it ends.
		_ = l.flights.Do(ctx, flight.Request[int, []byte]{Extra: ahead, Work: l.fetch})
	}
	return nil
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

// readCold fills p, waiting for those of its spans that are not stored, and
// has the spans ahead fetched with them.
func (l *Layer) readCold(ctx context.Context, p []byte, addr int64, ahead []int) error {
	var want []int
	first, n := spansOf(l.x.Spans, addr, int64(len(p)))
	for i := first; i < first+n; i++ {
		sp := &l.x.Spans[i]
		from, to := max(addr, sp.Addr), min(addr+int64(len(p)), sp.Addr+sp.Len)
		if !l.readStored(p[from-addr:to-addr], from, i, 1) {
			want = append(want, i)
		}
	}
	take := func(i int, data []byte) {
		at := l.x.Spans[i].Addr
		copy(p[max(at-addr, 0):], data[max(addr-at, 0):])
	}
	wanted := flight.Request[int, []byte]{Want: want, Extra: ahead, Work: l.fetch, Got: take}
	if !l.byPass() {
		if err := l.fetchFor(ctx, l.flights, wanted); !errdefs.IsNotImplemented(err) || !l.byPass() {
			return err
		}
	}
	// A pass fills all that is missing, so it is worth looking first whether it
	// can be avoided.
	wanted.Want = l.deliverKept(want, l.readKept, func(i int, data []byte, _ error) { take(i, data) })
	if len(wanted.Want) == 0 {
		return nil
	}
	wanted.Extra, wanted.Work = l.missing(0, len(l.x.Spans)), l.fetchPass
	return l.fetchFor(ctx, l.passes, wanted)
}

// fetchFor waits for what a reader wants. The kernel asks again for a page that
// it could not read ahead: a reader must not wait a second time for a source
// that has just used up its retries, unless it served others meanwhile.
func (l *Layer) fetchFor(ctx context.Context, g *flight.Group[int, []byte], r flight.Request[int, []byte]) error {
	start := time.Now()
	if o := l.outage.Load(); o != nil && start.Before(o.until) {
		return o.err
	}
	err := g.Do(ctx, r)
	now := time.Now()
	switch {
	case err == nil:
		l.served.Store(now.UnixNano())
	case errdefs.IsUnavailable(err) && now.Sub(start) > longWait && l.served.Load() < start.UnixNano():
		l.outage.Store(&outage{err, now.Add(outageFor)})
	}
	return err
}

// complain reports a store that does not take or give bytes. Reads go on
// without it.
func (l *Layer) complain(err error) {
	l.sick.Do(func() {
		l.log.WithError(err).Warn("cannot use the store; reading on without keeping what is fetched")
	})
}
