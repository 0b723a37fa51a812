package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func again(after time.Duration) error {
	return &fault{class: ErrUnreachable, text: "h", again: true, after: after}
}

// tries counts how often an operation that always fails alike is tried, and
// how long that takes.
func tries(t *testing.T, r Retry, err error) (n int, d time.Duration) {
	t.Helper()
	p := newPace(r.withDefaults())
	start := time.Now()
	for {
		n++
		if p.pause(t.Context(), err) != nil {
			return n, time.Since(start)
		}
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	refused := transportFault("h", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	unknown := transportFault("h", &net.DNSError{IsNotFound: true})
	for _, tt := range []struct {
		name     string
		retry    Retry
		err      error
		tries    int // at most
		min, max time.Duration
	}{
		{"default", Retry{}, again(0), 40, 25 * time.Second, 30 * time.Second},
		{"nobody there", Retry{}, refused, 5, 750 * time.Millisecond, 2250 * time.Millisecond},
		{"no such name", Retry{}, unknown, 5, 750 * time.Millisecond, 2250 * time.Millisecond},
		{"attempts", Retry{Attempts: 3}, again(0), 3, 150 * time.Millisecond, 450 * time.Millisecond},
		{"final error", Retry{}, &fault{class: ErrDenied}, 1, 0, 0},
		{"foreign error", Retry{}, io.ErrUnexpectedEOF, 1, 0, 0},
		{"budget", Retry{Budget: 10 * time.Second}, again(0), 20, 7 * time.Second, 10 * time.Second},
		{"Retry-After", Retry{}, again(7 * time.Second), 18, 112 * time.Second, 2 * time.Minute},
		{"Retry-After beyond the budget", Retry{}, again(time.Hour), 1, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			n, d := tries(t, tt.retry, tt.err)
			if n > tt.tries || d < tt.min || d > tt.max {
				t.Errorf("%s: %d tries in %v", tt.name, n, d)
			}
		})
	}
}

// A mount waits for a registry that is gone, for a minute.
func TestPauseRange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newRangePace(Retry{}.withDefaults())
		start := time.Now()
		for p.pause(t.Context(), transportFault("h", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})) == nil {
		}
		if d := time.Since(start); d < 55*time.Second || d > time.Minute {
			t.Errorf("gave up after %v", d)
		}
		wrong := &fault{class: ErrVerify, text: "h"}
		if err := p.doubt(wrong); transient(err) {
			t.Error("bytes of a range are verified by who reads them")
		}
	})
}

// Options.Timeout takes the place of both budgets.
func TestTimeout(t *testing.T) {
	t.Parallel()
	o, err := Options{Timeout: 5 * time.Second}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*pace{newPace(o.Retry), newRangePace(o.Retry)} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			for p.pause(t.Context(), again(0)) == nil {
			}
			if d := time.Since(start); d < 2*time.Second || d > 5*time.Second || p.retry.Progress > 5*time.Second {
				t.Errorf("gave up after %v", d)
			}
		})
	}
}

func TestDoubt(t *testing.T) {
	t.Parallel()
	p := newPace(Retry{}.withDefaults())
	n := 0
	for transient(p.doubt(&fault{class: ErrVerify, text: "h"})) {
		n++
	}
	if n != maxDoubts {
		t.Errorf("asked again %d times", n)
	}
	if denied := (&fault{class: ErrDenied}); transient(newPace(Retry{}).doubt(denied)) {
		t.Error("asked again what was denied")
	}
}

func TestPauseProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(Retry{Attempts: 3}.withDefaults())
		for range 10 {
			p.waited(minProgress-1, 10*time.Second)
			p.progress(minProgress)
			if err := p.pause(t.Context(), again(0)); err != nil {
				t.Fatalf("after progress: %v", err)
			}
		}
		p.waited(minProgress-1, time.Second)
		p.progress(minProgress - 1)
		if got := p.patience(); got > 20*time.Second || got < 19*time.Second {
			t.Errorf("patience %v", got)
		}
		p.waited(0, 20*time.Second)
		if got := p.patience(); got > 9*time.Second {
			t.Errorf("patience %v, 21 s of 30 are spent", got)
		}
		if err := p.pause(t.Context(), again(0)); err != nil {
			t.Fatal(err)
		}
		if err := p.pause(t.Context(), again(0)); !errors.Is(err, ErrUnreachable) {
			t.Errorf("third failure without progress: %v", err)
		}
	})
}

func TestPauseContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(Retry{}.withDefaults())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := p.pause(ctx, again(20*time.Second))
		if d := time.Since(start); d != time.Second {
			t.Errorf("returned after %v", d)
		}
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if err := p.pause(ctx, again(0)); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// pipeBody is a body fed by w.
func pipeBody(t *testing.T, p *pace) (*body, *io.PipeWriter) {
	t.Helper()
	o := Options{MaxPerHost: 1, RequestRate: 1}
	slot, err := newLimiter(o, newGate(o)).acquire(t.Context(), "h", 0)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	ctx, dog := watch(t.Context(), p)
	context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
	return &body{
		ctx: func() error { return context.Cause(ctx) }, done: ctx.Done(), host: "h", rc: r, dog: dog,
		slot: slot, stream: stream{flow: &slot.link.flow},
	}, w
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, w := pipeBody(t, newPace(Retry{Progress: 5 * time.Second}.withDefaults()))
		defer b.Close()
		go func() {
			w.Write([]byte("a"))        //nolint:errcheck // the reader tells
			time.Sleep(4 * time.Second) //nolint:forbidigo // the clock of the bubble
			w.Write([]byte("b"))        //nolint:errcheck // the reader tells
		}()
		p := make([]byte, 1)
		if _, err := b.Read(p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // the clock of the bubble: a slow consumer is not a stalled server
		if _, err := b.Read(p); err != nil || p[0] != 'b' {
			t.Fatal(err)
		}
		start := time.Now()
		_, err := b.Read(p)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("stall noticed after %v", d)
		}
		if !transient(err) || !errors.Is(err, errStalled) {
			t.Errorf("stall: %v", err)
		}
	})
}
