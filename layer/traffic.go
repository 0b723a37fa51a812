package layer

import (
	"cmp"
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// defaultMemory is TrafficOptions.Memory unless told.
	defaultMemory = 64 << 20
	// quiet is how long no read has to wait for the way to be idle: a program
	// that reads file after file is about to ask for the next one.
	quiet = 100 * time.Millisecond
)

// TrafficOptions bound what the layers of a process do at once.
type TrafficOptions struct {
	Memory  int64 // bytes of spans on their way, a single longer one apart; 64 MiB if 0
	NoGuess bool  // fetch nothing but what is read, or asked for by Prefetch and Fill
}

// Traffic is what the layers of a process share on their way to their sources:
// memory and processors, half of the one and all but one of the others for work
// that nobody waits for, and what may be spent on guesses. Its methods may be
// called concurrently.
type Traffic struct {
	memory   *quota // bytes of spans on their way, see reserve
	decoders *quota
	ranges   *semaphore.Weighted // of Prefetch
	guesses  *ledger             // nil: guess nothing
	rumours  rumours
	ears     ears

	mu      sync.Mutex // guards what follows
	reading int        // demand reads that wait for a source
	last    time.Time  // when there was one for the last time
}

// NewTraffic returns what layers that share a process should share.
func NewTraffic(o TrafficOptions) *Traffic {
	size := cmp.Or(max(o.Memory, 0), defaultMemory)
	others := max(int64(runtime.GOMAXPROCS(0))-1, 1)
	t := &Traffic{
		memory:   &quota{size: size, low: size / 2},
		decoders: &quota{size: others + 1, low: others},
		ranges:   semaphore.NewWeighted(prefetchRanges),
	}
	if !o.NoGuess {
		t.guesses = new(ledger)
	}
	return t
}

// begin takes note of a demand read that waits for a source until end is called.
func (t *Traffic) begin() (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reading++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.reading--
		t.last = time.Now()
	}
}

// Idle returns when no demand read waits for a source, and none has for a
// tenth of a second, or ctx's error.
func (t *Traffic) Idle(ctx context.Context) error {
	for rest := t.unrest(); rest > 0; rest = t.unrest() {
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// unrest returns how long no read has to wait until the way is idle.
func (t *Traffic) unrest() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reading > 0 {
		return quiet
	}
	return quiet - time.Since(t.last)
}

// Gauge is a Source that knows its link.
type Gauge interface {
	// Link returns the round trip and the bandwidth in bytes a second; 0 is
	// unknown.
	Link() (roundTrip time.Duration, bandwidth int64)
}
