package remote

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// minProgress is how many bytes must arrive for an operation to count as
// alive. A host that drips single bytes, or dies after each, does not.
const minProgress = 16 << 10

// pace decides how long one operation goes on: it counts the tries and the
// time spent waiting for the network since the last progress. The time a
// caller takes between two reads does not count.
type pace struct {
	retry  Retry
	delays backoff.ExponentialBackOff
	tries  int
	spent  time.Duration
	moved  int64 // bytes since the last progress
}

func newPace(r Retry) *pace {
	return &pace{retry: r, delays: backoff.ExponentialBackOff{
		InitialInterval:     r.Base,
		MaxInterval:         r.Max,
		Multiplier:          2,
		RandomizationFactor: 0.5,
	}}
}

// patience is how long to wait for the next byte.
func (p *pace) patience() time.Duration {
	return max(time.Millisecond, min(p.retry.Progress, p.retry.Budget-p.spent))
}

// settling is how long to wait for the answer to what was sent whole: the last
// bytes are still in the kernel's buffers, and registries hash and move a blob
// before they answer.
func (p *pace) settling() time.Duration { return 10 * p.retry.Progress }

// record notes that n bytes came after a wait of d.
func (p *pace) record(n int, d time.Duration) {
	p.spent += d
	p.moved += int64(n)
	if p.moved >= minProgress {
		p.moved, p.tries, p.spent = 0, 0, 0
		p.delays.Reset()
	}
}

// pause returns nil when err is worth another try, after the time to wait for
// it; otherwise the error to give up with.
func (p *pace) pause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ended(ctx, err)
	}
	var f *fault
	if !errors.As(err, &f) || !f.again {
		return err
	}
	p.tries++
	delay := max(p.delays.NextBackOff(), f.after)
	if p.tries >= p.retry.Attempts || p.spent+delay > p.retry.Budget {
		last := *f
		last.tries = p.tries
		if f.after > 0 {
			last.text += ", asks to wait " + f.after.String()
		}
		return &last
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		p.spent += delay
		return nil
	case <-ctx.Done():
		return ended(ctx, err)
	}
}
