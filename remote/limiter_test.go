package remote

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peelfs/peel/internal/priority"
)

// as is a context of a class.
func as(t *testing.T, c priority.Class) context.Context {
	t.Helper()
	return priority.With(t.Context(), c)
}

func newLanes(slots, rate int) *limiter {
	o := Options{MaxPerHost: slots, RequestRate: rate}
	return newLimiter(o, newGate(o))
}

// queue is who asks for slots of one host, by names that begin with d, p or f
// for their class.
type queue struct {
	l    *limiter
	size int64 // of what they ask for

	mu    sync.Mutex
	order []string // granted
	slots map[string]*slot
	ctx   map[string]context.Context
	wg    sync.WaitGroup
}

func newQueue(l *limiter) *queue {
	return &queue{l: l, slots: map[string]*slot{}, ctx: map[string]context.Context{}}
}

// ask has one more ask, and waits until all have got what they may.
func (q *queue) ask(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		ctx, cancel := context.WithCancel(as(t, map[byte]priority.Class{'d': priority.Demand, 'p': priority.Prefetch, 'f': priority.Fill}[name[0]]))
		t.Cleanup(cancel)
		q.ctx[name] = ctx
		q.wg.Go(func() {
			s, err := q.l.acquire(ctx, "h", q.size)
			if err != nil {
				return
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			q.order = append(q.order, name)
			q.slots[name] = s
		})
		synctest.Wait()
	}
}

func (q *queue) release(names ...string) {
	for _, name := range names {
		q.slots[name].release()
		synctest.Wait()
	}
}

// granted is who was since it was called before, by name.
func (q *queue) granted() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	slices.Sort(q.order) // those granted at once are told in any order
	s := strings.Join(q.order, " ")
	q.order = nil
	return s
}

func (q *queue) want(t *testing.T, what, names string) {
	t.Helper()
	if got := q.granted(); got != names {
		t.Errorf("%s: granted %q, want %q", what, got, names)
	}
}

// names are those of a class with numbers.
func names(class string, from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, class+strconv.Itoa(i))
	}
	return out
}

// together is what granted says of them.
func together(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), " ")
}

func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const slots, most = 2 * maxPrefetches, maxPrefetches
		const demands = slots - 1 - most // beside the fill and the prefetches
		q := newQueue(newLanes(slots, 1000))
		q.ask(t, "f1", "f2")
		q.want(t, "one fill", "f1")
		q.ask(t, names("p", 1, most+1)...)
		last := names("p", most+1, most+1)[0]
		q.want(t, "so many prefetches", together(names("p", 1, most)))
		q.ask(t, names("d", 1, demands+1)...)
		q.want(t, "demands in what is left", together(names("d", 1, demands)))
		q.ask(t, names("d", demands+2, demands+2)...)
		q.release("p1")
		q.want(t, "demand before prefetch", together(names("d", demands+1, demands+1)))
		q.release("p2", "p3", "f1")
		q.want(t, "the last quarter is not for prefetch", together(names("d", demands+2, demands+2)))
		const over = slots - 2 - slots*3/4 // of those under way
		q.release(names("d", 1, over)...)
		q.want(t, "nor its border", "")
		q.release(names("d", over+1, over+1)...)
		q.want(t, "below it", last)
		q.release(names("d", over+2, demands+2)...)
		q.release(names("p", 4, most)...)
		q.want(t, "no fill beside a prefetch", "")
		q.release(last)
		q.want(t, "nothing else to do", "f2")
		q.release("f2")
		if len(q.l.hosts) != 0 {
			t.Error("idle hosts are remembered")
		}
	})
}

// One slot is for all classes.
func TestTurnsOneSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(newLanes(1, 1000))
		for _, name := range []string{"p", "f", "d"} {
			q.ask(t, name)
			q.want(t, "alone", name)
			q.release(name)
		}
	})
}

// Who becomes more urgent while it waits is served as such, at once if it may.
func TestRaisedWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = maxPrefetches
		q := newQueue(newLanes(2*most, 1000))
		q.ask(t, names("p", 1, most)...)
		q.ask(t, "pnext", "praised", "f1")
		q.want(t, "so many prefetches", together(names("p", 1, most)))
		priority.Raise(q.ctx["praised"], priority.Demand)
		synctest.Wait()
		q.want(t, "raised", "praised")
		priority.Raise(q.ctx["p1"], priority.Demand)
		synctest.Wait()
		q.release("praised")
		q.want(t, "one prefetch fewer, and a demand", "pnext")
		priority.Raise(q.ctx["f1"], priority.Prefetch)
		q.release("p2")
		q.want(t, "fill raised to prefetch", "f1")
		q.release("p1", "pnext", "f1")
		q.release(names("p", 3, most)...)
	})
}

// As long as demands are expected, other classes have no more on the line than
// one range and what keeps it busy.
func TestCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(newLanes(16, 1000))
		q.size = 500_000
		l := q.l.links.of("h")
		q.ask(t, "d1")
		q.release("d1")
		q.ask(t, "p1", "p2")
		q.want(t, "nothing is known of the link", "d1 p1 p2")
		q.release("p1", "p2")

		l.trips.add(40 * time.Millisecond)
		l.flow.best.Store(1_250_000) // 100 000 in two round trips
		q.ask(t, "p1", "p2", "p3", "p4", "p5", "p6")
		q.want(t, "one after a demand", "p1")
		q.slots["p1"].took(390_000)
		q.want(t, "much of it is left", "")
		q.slots["p1"].took(20_000)
		synctest.Wait()
		q.want(t, "little is left", "p2")
		priority.Raise(q.ctx["p2"], priority.Demand)
		q.release("p1")
		q.want(t, "what is raised is in nobody's way", "p3")
		time.Sleep(2 * lull) //nolint:forbidigo // the clock of the bubble
		q.want(t, "while it goes on", "")
		q.release("p2")
		time.Sleep(lull / 2) //nolint:forbidigo // the clock of the bubble
		q.want(t, "another may come", "")
		q.ask(t, "d2")
		q.want(t, "as it does", "d2")
		q.release("d2")
		time.Sleep(lull) //nolint:forbidigo // the clock of the bubble
		synctest.Wait()
		q.want(t, "none comes", "p4 p5 p6")
		q.release("p3", "p4", "p5", "p6")
	})
}

// Who gives up waiting is in nobody's way.
func TestGivenUpWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(2, 1000)
		q := newQueue(l)
		q.ask(t, "p1", "f1")
		q.want(t, "one of the lower", "p1")
		ctx, cancel := context.WithCancel(as(t, priority.Prefetch))
		q.wg.Go(func() {
			if _, err := l.acquire(ctx, "h", 0); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		q.release("p1")
		q.want(t, "nobody before it", "f1")
		q.release("f1")
		if len(l.hosts) != 0 {
			t.Error("who gave up is remembered")
		}
	})
}

func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(newLanes(1000, 8))
		start := time.Now()
		q.ask(t, "d1", "d2", "d3", "d4", "d5", "d6")
		q.want(t, "demand", "d1 d2 d3 d4 d5 d6")
		q.ask(t, "p1")
		q.want(t, "the rest is for demand", "")
		q.ask(t, "d7", "d8", "d9")
		q.want(t, "demand", "d7 d8")
		time.Sleep(130 * time.Millisecond) //nolint:forbidigo // the clock of the bubble
		q.want(t, "after an eighth of a second", "d9")
		time.Sleep(3 * time.Second) //nolint:forbidigo // the clock of the bubble
		q.want(t, "in time", "p1")
		for range 40 {
			q.ask(t, "d")
		}
		q.wg.Wait()
		if d := time.Since(start); d < 5500*time.Millisecond || d > 8*time.Second {
			t.Errorf("50 requests at 8 a second and 8 at once took %v", d)
		}
	})
}

// A client asks no faster than its rate, whatever it asks for.
func TestRateOfRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(100_000)
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
		c, end := optionWire(t, &http.Server{Handler: h}, Options{RequestRate: 20})
		defer func() { end(); synctest.Wait() }()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		start := time.Now()
		for i := range int64(100) {
			wantRange(t, b, content, i, 100)
		}
		if d := time.Since(start); d < 3900*time.Millisecond || d > 4200*time.Millisecond {
			t.Errorf("100 requests at 20 a second and 20 at once took %v", d)
		}
	})
}
