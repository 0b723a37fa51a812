package layer

import (
	"time"

	"github.com/peelfs/peel/internal/priority"
)

// Link is what is known of the way to a source. Zero fields are unknown, and
// taken for 40 ms and 12.5 MB/s.
type Link struct {
	RoundTrip time.Duration // until the first byte of a response
	Bandwidth int64         // of all responses together, bytes a second
}

// limits are those of plans for work of class c.
func (k Link) limits(c priority.Class) planLimits {
	if c == priority.Fill {
		return planLimits{gap: fillGap, run: fillRun, requests: 1}
	}
	return readLimits()
}
