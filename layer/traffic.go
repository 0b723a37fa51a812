package layer

import (
	"cmp"
	"context"
	"runtime"
	"time"

	"golang.org/x/sync/semaphore"
)

// defaultMemory is TrafficOptions.Memory unless told.
const defaultMemory = 64 << 20

// TrafficOptions bound what the layers of a process do at once.
type TrafficOptions struct {
	Memory  int64 // bytes of spans on their way, a single longer one apart; 64 MiB if 0
	NoGuess bool  // fetch nothing but what is read, or asked for by Prefetch and Fill
}

// Traffic is what the layers of a process share on their way to their sources.
// Its methods may be called concurrently.
type Traffic struct {
	o        TrafficOptions
	memory   *semaphore.Weighted // bytes of spans on their way, see reserve
	decoders *semaphore.Weighted
}

// NewTraffic returns what layers that share a process should share.
func NewTraffic(o TrafficOptions) *Traffic {
	o.Memory = cmp.Or(max(o.Memory, 0), defaultMemory)
	return &Traffic{
		o:        o,
		memory:   semaphore.NewWeighted(o.Memory),
		decoders: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
	}
}

// Idle returns when no demand read waits for a source.
func (t *Traffic) Idle(ctx context.Context) error { return ctx.Err() }

// Gauge is a Source that knows its link.
type Gauge interface {
	// Link returns the round trip and the bandwidth in bytes a second; 0 is
	// unknown.
	Link() (roundTrip time.Duration, bandwidth int64)
}
