package remote

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A window of the flow ends after windowTime, or with windowBytes if that
	// took windowLeast: in less, the bursts of a kernel's timers show.
	windowTime  = 100 * time.Millisecond
	windowBytes = 256 << 10
	windowLeast = 10 * time.Millisecond
	// bestOf is how many windows the bandwidth is the best of: as in BBR, no
	// window shows more than the line can do, and many show less.
	bestOf = 10
	// A read that takes longer than copying would has waited for the host:
	// copySetup, and a nanosecond a byte.
	copySetup = 20 * time.Microsecond
)

// flow measures how fast a host delivers, all its bodies together. The time
// counted is that in which bodies are being read. Windows in which readers did
// not wait for the host half of that time tell how fast consumers are, and are
// thrown away. Bytes that may have come before a window began are not counted.
type flow struct {
	best atomic.Int64 // bytes a second

	mu     sync.Mutex // guards what follows
	open   int        // bodies that are being read
	reads  int        // reads under way
	from   time.Time  // when the window began, or the part of it since a body is open
	before time.Duration
	since  time.Time     // when the first of the reads under way began
	waited time.Duration // with reads under way, since the window began
	bytes  int64
	last   [bestOf]int64
	n      int
}

// rate is in bytes a second, zero if unknown.
func (f *flow) rate() int64 { return f.best.Load() }

// stream is one body's share in a flow; for one goroutine.
type stream struct {
	flow *flow
	// What was not read yet came after this.
	after time.Time
	open  bool
}

// begin notes that a read begins.
func (s *stream) begin(now time.Time) {
	f := s.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if !s.open {
		s.open = true
		if f.open++; f.open == 1 {
			f.from = now
		}
	}
	if f.reads++; f.reads == 1 {
		f.since = now
	}
}

// end notes that a read ends, which took so long and brought n bytes.
func (s *stream) end(now time.Time, took time.Duration, n int) {
	f := s.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reads--; f.reads == 0 {
		f.waited += now.Sub(f.since)
	}
	waited := took > copySetup+time.Duration(n)
	if waited || !s.after.Before(f.from) {
		f.bytes += int64(n)
	}
	if waited {
		s.after = now
	}
	elapsed := f.before + now.Sub(f.from)
	if elapsed >= windowTime || f.bytes >= windowBytes && elapsed >= windowLeast {
		f.closeLocked(now, elapsed)
	}
}

// leave notes that nobody reads the body for a while, or ever again.
func (s *stream) leave(now time.Time) {
	if !s.open {
		return
	}
	s.open = false
	f := s.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open--; f.open == 0 {
		f.before += now.Sub(f.from)
	}
}

// closeLocked ends a window and begins the next.
func (f *flow) closeLocked(now time.Time, elapsed time.Duration) {
	if f.reads > 0 {
		f.waited += now.Sub(f.since)
		f.since = now
	}
	if f.waited >= elapsed/2 && f.bytes > 0 {
		f.last[f.n%bestOf] = int64(float64(f.bytes) / elapsed.Seconds())
		f.n++
		best := int64(0)
		for _, r := range f.last {
			best = max(best, r)
		}
		f.best.Store(best)
	}
	f.from, f.before, f.waited, f.bytes = now, 0, 0, 0
}
