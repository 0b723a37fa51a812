package remote

import (
	"cmp"
	"context"
	"errors"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// minProgress is how many bytes must arrive for an operation to count as
	// alive. A host that drips single bytes, or dies after each, does not.
	minProgress = 16 << 10

	documentBudget = 30 * time.Second
	rangeBudget    = 60 * time.Second
	// How often a document is asked for where nobody answers the connection, or
	// where DNS knows no address: mostly a name that was mistyped.
	maxAbsent = 5
	// How often a document that is not what its digest says is asked for again.
	maxDoubts = 4
	// How many budgets an operation waits in all because the host asks for it.
	maxObliged = 4
)

// Retry bounds an operation that makes no progress. Zero fields mean the
// default.
type Retry struct {
	Attempts int           // tries; as many as the budget allows
	Budget   time.Duration // waiting in all, 30 s; 60 s for byte ranges of blobs
	Progress time.Duration // wait for a single byte or a header before reconnecting, 20 s
	Base     time.Duration // first back-off, 100 ms; doubles, with jitter of half
	Max      time.Duration // longest back-off, 2 s
}

func (r Retry) withDefaults() Retry {
	r.Progress = cmp.Or(max(r.Progress, 0), defaultProgress)
	r.Base = cmp.Or(max(r.Base, 0), 100*time.Millisecond)
	r.Max = cmp.Or(max(r.Max, 0), 2*time.Second)
	return r
}

// pace decides how long one operation goes on: it counts the tries and the
// time spent waiting for the network since the last progress. The time a
// caller takes between two reads does not count.
type pace struct {
	retry  Retry
	budget time.Duration
	absent int // tries that may find nobody at the address; 0: any number
	doubts int // see doubt
	delays backoff.ExponentialBackOff

	tries  int
	missed int // tries that found nobody
	spent  time.Duration
	moved  int64 // bytes kept since the last progress
	// Waited because the host asked for it. Such a host is alive: this is no
	// time without an answer, and others may have been asked to wait before us.
	obliged time.Duration

	// Of the try under way: the wait since bytes came, and the bytes. They keep
	// it alive, but are no progress if the next one begins anew.
	idle time.Duration
	came int64
}

// newPace is for documents and pushes.
func newPace(r Retry) *pace {
	p := paceOf(r, documentBudget)
	p.absent, p.doubts = maxAbsent, maxDoubts
	return p
}

// newRangePace is for byte ranges of blobs. Who reads a mount has no use for an
// error, and a registry that restarts is back within the minute. What fails
// verification is the layer's to find and to ask for again.
func newRangePace(r Retry) *pace { return paceOf(r, rangeBudget) }

func paceOf(r Retry, budget time.Duration) *pace {
	return &pace{
		retry:  r,
		budget: cmp.Or(max(r.Budget, 0), budget),
		delays: backoff.ExponentialBackOff{
			InitialInterval:     r.Base,
			MaxInterval:         r.Max,
			Multiplier:          2,
			RandomizationFactor: 0.5,
		},
	}
}

// patience is how long to wait for the next byte.
func (p *pace) patience() time.Duration {
	return max(time.Millisecond, min(p.retry.Progress, p.budget-p.spent-p.idle))
}

// settling is how long to wait for the answer to what was sent whole: the last
// bytes are still in the kernel's buffers, and registries hash and move a blob
// before they answer.
func (p *pace) settling() time.Duration { return 10 * p.retry.Progress }

// waited notes that n bytes came after a wait of d.
func (p *pace) waited(n int, d time.Duration) {
	p.idle += d
	if p.came += int64(n); p.came >= minProgress {
		p.came, p.idle = 0, 0
	}
}

// progress notes that n bytes need not be asked for again.
func (p *pace) progress(n int64) {
	if p.moved += n; p.moved >= minProgress {
		p.moved, p.tries, p.missed, p.spent, p.idle, p.obliged = 0, 0, 0, 0, 0, 0
		p.delays.Reset()
	}
}

// doubt makes an error of verification one that is worth another try, a few
// times in the life of an operation: bytes may have changed on the way.
func (p *pace) doubt(err error) error {
	var f *fault
	if p.doubts == 0 || !errors.As(err, &f) || !errors.Is(f.class, ErrVerify) {
		return err
	}
	p.doubts--
	with := *f
	with.again = true
	return &with
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
	p.spent += p.idle
	p.idle, p.came = 0, 0
	if nobody(f) {
		p.missed++
	}
	delay, wait := f.after+jitter(p.retry.Base), &p.obliged
	if f.after == 0 {
		delay, wait = p.delays.NextBackOff(), &p.spent
	}
	if p.over(f, delay) {
		last := *f
		last.tries, last.again = p.tries, false
		if f.after > 0 {
			last.text += ", asks to wait " + rounded(f.after).String()
		}
		return &last
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		*wait += delay
		return nil
	case <-ctx.Done():
		return ended(ctx, err)
	}
}

// over reports whether the operation may not go on after f and a wait of d.
func (p *pace) over(f *fault, d time.Duration) bool {
	switch {
	case p.retry.Attempts > 0 && p.tries >= p.retry.Attempts, p.absent > 0 && p.missed >= p.absent:
		return true
	case f.after > 0:
		return p.spent > p.budget || d > p.budget || p.obliged+d > maxObliged*p.budget
	}
	return p.spent+d > p.budget
}

// nobody reports whether a request came to no connection, with the host or with
// the proxy before it: the address is refused, or unknown.
func nobody(f *fault) bool {
	var op *net.OpError
	var name *net.DNSError
	return errors.As(f, &op) && (op.Op == "dial" || op.Op == "proxyconnect" || op.Op == "socks connect") || errors.As(f, &name)
}

// rounded is d for people, who are not told less than they are to wait.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d
	}
	return (d + time.Second - 1).Truncate(time.Second)
}
