package layer

import (
	"cmp"
	"time"

	"github.com/peelfs/peel/internal/priority"
)

// What a link is taken for until it is known.
const (
	usualRoundTrip = 40 * time.Millisecond
	usualBandwidth = 12_500_000 // bytes a second
)

// Link is what is known of the way to a source. Fields that are not positive
// are unknown, and taken for 40 ms and 12.5 MB/s.
type Link struct {
	RoundTrip time.Duration // until the first byte of a response
	Bandwidth int64         // of all responses together, bytes a second
}

// Bounds of what limits makes of a link, however odd its measurements.
const (
	minProduct = 64 << 10 // bytes
	maxProduct = 16 << 20 // bytes
	maxGap     = 1 << 20  // bytes
	minRun     = 4 << 20  // bytes: on short ways a connection is busy with it for long
	maxRun     = 16 << 20 // bytes
)

// product returns how many bytes come in one round trip, within bounds.
func (k Link) product() int64 {
	roundTrip, bandwidth := max(k.RoundTrip, 0), max(k.Bandwidth, 0)
	n := cmp.Or(roundTrip, usualRoundTrip).Seconds() * float64(cmp.Or(bandwidth, usualBandwidth))
	return int64(min(max(n, minProduct), maxProduct))
}

// limits are those of plans for work of class c. A gap is worth reading if it
// takes an eighth of a round trip; at 40 ms and 12.5 MB/s that is 62 KiB.
func (k Link) limits(c priority.Class) planLimits {
	product := k.product()
	lim := planLimits{gap: min(max(product/8, planGap/4), maxGap), run: min(max(8*product, minRun), maxRun), requests: 4, waste: 8}
	switch c {
	case priority.Demand:
		lim.split = max(2*product, 1<<20)
	case priority.Prefetch:
		lim.requests = 2
	case priority.Fill:
		lim = planLimits{gap: fillGap, run: fillRun, requests: 1, waste: 8}
	}
	return lim
}
