package remote

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	line "github.com/peelfs/peel/internal/link"
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

func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(newLanes(8, 1000))
		q.ask(t, "f1", "f2")
		q.want(t, "one fill", "f1")
		q.ask(t, "p1", "p2", "p3", "p4", "p5")
		q.want(t, "four prefetches", "p1 p2 p3 p4")
		q.ask(t, "d1", "d2", "d3", "d4")
		q.want(t, "demands in what is left", "d1 d2 d3")
		q.ask(t, "d5")
		q.release("p1")
		q.want(t, "demand before prefetch", "d4")
		q.release("p2", "p3", "f1")
		q.want(t, "the last quarter is not for prefetch", "d5")
		q.release("d1")
		q.want(t, "below it", "p5")
		q.release("d2", "d3", "d4", "d5", "p4")
		q.want(t, "no fill beside a prefetch", "")
		q.release("p5")
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
		q := newQueue(newLanes(8, 1000))
		q.ask(t, "p1", "p2", "p3", "p4", "p5", "p6", "f1")
		q.want(t, "four prefetches", "p1 p2 p3 p4")
		priority.Raise(q.ctx["p6"], priority.Demand)
		synctest.Wait()
		q.want(t, "raised", "p6")
		priority.Raise(q.ctx["p1"], priority.Demand)
		synctest.Wait()
		q.release("p6")
		q.want(t, "three prefetches and a demand", "p5")
		priority.Raise(q.ctx["f1"], priority.Prefetch)
		q.release("p2")
		q.want(t, "fill raised to prefetch", "f1")
		q.release("p1", "p3", "p4", "p5", "f1")
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

// reading reads a range and tells when it is done.
func reading(ctx context.Context, b *Blob, off, n int64) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := readRange(ctx, b, off, n)
		done <- err
	}()
	return done
}

// Bodies of a lower class make way for a demand, go on at once when they are
// raised, and are not taken for stalled.
func TestPauseForDemand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(1 << 20)
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
		c, end := optionWire(t, &http.Server{Handler: h}, Options{Retry: Retry{Progress: 2 * time.Second, Budget: 4 * time.Second}})
		defer func() { end(); synctest.Wait() }()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		wantRange(t, b, content, 1, 1) // now it is known who serves

		ctx := as(t, priority.Prefetch)
		low, err := b.ReadRange(ctx, 100, 500_000)
		if err != nil {
			t.Fatal(err)
		}
		defer low.Close()
		want := func(what string, wait time.Duration) {
			t.Helper()
			start := time.Now()
			if _, err := low.Read(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d != wait {
				t.Errorf("%s: waited %v", what, d)
			}
		}
		want("alone", 0)
		demand, err := b.ReadRange(t.Context(), 5, 500_000)
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			want("beside a demand that goes on", longestPause)
		}
		time.AfterFunc(300*time.Millisecond, func() {
			if err := demand.Close(); err != nil {
				t.Error(err)
			}
		})
		want("until the demand ended", 300*time.Millisecond)
		want("alone again", 0)

		if demand, err = b.ReadRange(t.Context(), 5, 500_000); err != nil {
			t.Fatal(err)
		}
		defer demand.Close()
		time.AfterFunc(300*time.Millisecond, func() { priority.Raise(ctx, priority.Demand) })
		want("until raised", 300*time.Millisecond)
		want("raised", 0)
		if n := c.Stats().Retries; n != 0 {
			t.Errorf("%d retries", n)
		}
	})
}

// A demand never waits behind another class by more than one range under way.
func TestDemandAmongPrefetches(t *testing.T) {
	t.Parallel()
	const bandwidth, trip = 10e6, 40 * time.Millisecond
	const size = 512 << 10
	oneRange := time.Duration(size * 8 * float64(time.Second) / bandwidth)
	content := noise(32 * size)
	for _, tt := range []struct {
		name  string
		class priority.Class
		n     int64 // of the demand
	}{
		{"short, prefetches", priority.Prefetch, 32 << 10},
		{"long, prefetches", priority.Prefetch, size},
		{"short, fills", priority.Fill, 32 << 10},
		{"long, fills", priority.Fill, size},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, stop := farClient(t, &line.Link{RoundTrip: trip, Bandwidth: bandwidth}, content, Options{})
				defer stop()
				ask := func() time.Duration {
					start := time.Now()
					wantRange(t, b, content, 7, tt.n)
					return time.Since(start)
				}
				ask()
				alone := ask()
				ctx, cancel := context.WithCancel(as(t, tt.class))
				var others []<-chan error
				for i := range int64(30) {
					others = append(others, reading(ctx, b, i*size, size))
				}
				time.Sleep(time.Second) //nolint:forbidigo // the clock of the bubble
				for range 5 {
					// A connection for it may have to be made.
					if d := ask(); d > alone+trip+oneRange {
						t.Errorf("took %v, alone %v, a range of others %v", d, alone, oneRange)
					}
				}
				cancel()
				done := 0
				for _, other := range others {
					if <-other == nil {
						done++
					}
				}
				if done == len(others) {
					t.Error("the others were done before")
				}
			})
		})
	}
}

// All that are queued come through in the end, and demands with them.
func TestClassesTogether(t *testing.T) {
	t.Parallel()
	content := noise(1 << 20)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{MaxPerHost: 5, RequestRate: 5000})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	var wg sync.WaitGroup
	var got []error
	var mu sync.Mutex
	for i := range int64(120) {
		ctx := as(t, priority.Class(i%3))
		wg.Go(func() {
			if i%7 == 0 {
				defer priority.Raise(ctx, priority.Demand)
			}
			_, err := readRange(ctx, b, i*1000, 50_000)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, err)
		})
		if i%10 == 0 {
			priority.Raise(ctx, priority.Demand)
		}
	}
	wg.Wait()
	if err := errors.Join(got...); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(0, len(c.limiter.hosts)); diff != "" {
		t.Error("slots are lost")
	}
}
