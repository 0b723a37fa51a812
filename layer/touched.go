package layer

import (
	"sync"
	"sync/atomic"
	"time"
)

// Touch is the first time that somebody read from a span.
type Touch struct {
	Span int
	At   time.Time
}

// touches knows which spans have been read from, and which were fetched though
// nobody has.
type touches struct {
	seen     spanSet     // set with mu held
	foretold spanSet     // by Prefetch
	told     atomic.Bool // something is foretold

	mu      sync.Mutex // guards what follows
	epoch   time.Time  // of the first touch
	order   []touch
	bytes   int64 // compressed, of spans touched
	early   map[int]struct{}
	untaken int64 // compressed bytes of early
}

// touch is a Touch in few bytes.
type touch struct {
	after time.Duration // the first one
	span  uint32
}

// spanSet is a set of spans.
type spanSet []atomic.Uint64

func newSpanSet(n int) spanSet { return make(spanSet, (n+63)/64) }

func (s spanSet) has(i int) bool { return s[i/64].Load()&(1<<(i%64)) != 0 }

func (s spanSet) add(i int) { s[i/64].Or(1 << (i % 64)) }

// once adds span i, and reports whether it was not there.
func (s spanSet) once(i int) bool { return s[i/64].Or(1<<(i%64))&(1<<(i%64)) == 0 }

func newTouches(spans int) touches {
	return touches{seen: newSpanSet(spans), foretold: newSpanSet(spans), early: make(map[int]struct{})}
}

// has reports whether span i has been touched.
func (t *touches) has(i int) bool { return t.seen.has(i) }

// foretell takes note of a span that will be read.
func (t *touches) foretell(i int) {
	t.foretold.add(i)
	t.told.Store(true)
}

// expected reports whether all of the spans [first, first+n) were foretold.
func (t *touches) expected(first, n int) bool {
	if !t.told.Load() {
		return false
	}
	for i := first; i < first+n; i++ {
		if !t.foretold.has(i) {
			return false
		}
	}
	return true
}

// add takes note of a read of span i, of so many compressed bytes, and reports
// whether it was the first.
func (t *touches) add(i int, size int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.has(i) {
		return false
	}
	t.seen.add(i)
	now := time.Now()
	if len(t.order) == 0 {
		t.epoch = now
	}
	t.order = append(t.order, touch{now.Sub(t.epoch), uint32(i)})
	t.bytes += size
	if _, ok := t.early[i]; ok {
		delete(t.early, i)
		t.untaken -= size
	}
	return true
}

// came takes note of a span that was fetched before anybody asked for it.
func (t *touches) came(i int, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.early[i]; ok || t.has(i) {
		return
	}
	t.early[i] = struct{}{}
	t.untaken += size
}

// sums returns the compressed bytes of spans that were touched, and of those
// that came and were not.
func (t *touches) sums() (touched, untaken int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes, t.untaken
}

// Touches returns the spans that have been read from, in the order of the
// first time. What the kernel reads ahead counts as read.
func (l *Layer) Touches() []Touch {
	t := &l.touches
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Touch, len(t.order))
	for k, one := range t.order {
		all[k] = Touch{Span: int(one.span), At: t.epoch.Add(one.after)}
	}
	return all
}

// touch takes note of a read of the spans [first, first+n), and reports whether
// some are read the first time that had been guessed.
func (l *Layer) touch(first, n int) (guessed bool) {
	for i := first; i < first+n; i++ {
		if !l.touches.has(i) && l.touches.add(i, l.x.cost(i)) && l.x.seekable() && !l.touches.foretold.has(i) {
			guessed = l.forecast.touched(i) || guessed
		}
	}
	return guessed
}
