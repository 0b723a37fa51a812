package layer

import (
	"context"
	"slices"
	"sync"

	"github.com/peelfs/peel/internal/flight"
	"github.com/peelfs/peel/internal/priority"
)

// arrival is a span's verified bytes, and where they came from.
type arrival struct {
	data []byte
	from Origin
}

// request is what a flight is asked for.
type request = flight.Request[int, arrival]

// errand is what a piece of work is told beside its spans.
type errand struct {
	why     why
	pass    bool        // the blob is read from its beginning
	lim     planLimits  // of requests for ranges
	guessed []int       // those of the spans, sorted, that count as guessed whatever why says
	account []int       // those of the spans, sorted, that the forecast accounts for
	failed  func(error) // told why a span did not come; nil: nobody

	mu   sync.Mutex // guards what follows
	came []int      // of account: what the source was asked for and gave
}

// reason returns why span i is fetched.
func (e *errand) reason(i int) why {
	if _, ok := slices.BinarySearch(e.guessed, i); ok {
		return guessedAt
	}
	return e.why
}

// urgency is less for spans one of which somebody waits for.
func (e *errand) urgency(spans []int) int {
	if slices.ContainsFunc(spans, func(i int) bool { return e.reason(i) != guessedAt }) {
		return 0
	}
	return 1
}

// begin starts an errand for those of the spans of r that nobody is at. Work that
// is under way becomes as urgent as ctx if r wants something of it.
func (l *Layer) begin(ctx context.Context, e *errand, r request) (*flight.Hold[int, arrival], error) {
	g, work := l.flights, l.fetching
	if e.pass {
		g, work = l.passes, l.passing
	}
	class := priority.Of(ctx)
	if class != priority.Demand {
		ctx = priority.With(ctx, class) // others may raise this work, and no other
	}
	r.Work = work(e)
	r.Joined = func(work context.Context) { priority.Raise(work, class) }
	h, err := g.Begin(ctx, r)
	if err != nil || !h.Started {
		l.forecast.unused(e.account)
	}
	return h, err
}

// early has guessed spans fetched, unless there is something more urgent. Nobody
// waits for this, so nobody cares how it ends.
func (l *Layer) early(ctx context.Context, spans []int) {
	if len(spans) == 0 {
		return
	}
	ctx = priority.With(ctx, priority.Prefetch)
	lim := l.link().limits(priority.Prefetch)
	for _, r := range plan(l.x.Spans, spans, lim) { // each by itself, so that it is raised by itself
		e := &errand{why: guessedAt, lim: lim, account: r.spans}
		h, err := l.begin(ctx, e, request{Extra: append(l.between(slices.Clone(r.spans), lim), r.spans...)})
		if err == nil {
			h.Leave()
		}
	}
}

// counting is done that counts what came, and why.
func (l *Layer) counting(ctx context.Context, e *errand, done deliver) deliver {
	return func(i int, a arrival, err error) {
		switch {
		case err == nil:
			l.count(e, i, a.from)
		case e.failed != nil:
			e.failed(err)
		}
		done(i, a, err)
		if err == nil && !l.forecast.sweeping() {
			l.hear(ctx, i, a.data)
		}
	}
}

func (l *Layer) count(e *errand, i int, from Origin) {
	switch cost := l.x.cost(i); from {
	case FromStore:
	case FromReuse:
		l.counters.reused.Add(cost)
	case FromNetwork:
		y := e.reason(i)
		l.counters.fetched[y].Add(cost)
		if y == guessedAt || y == prefetched {
			l.touches.came(i, cost)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if _, ok := slices.BinarySearch(e.account, i); ok {
			e.came = append(e.came, i)
		}
	}
}

// settle tells the forecast which of its guesses cost nothing after all.
func (l *Layer) settle(e *errand) {
	e.mu.Lock()
	defer e.mu.Unlock()
	slices.Sort(e.came)
	var rest []int
	for _, i := range e.account {
		if _, ok := slices.BinarySearch(e.came, i); !ok {
			rest = append(rest, i)
		}
	}
	l.forecast.unused(rest)
}
