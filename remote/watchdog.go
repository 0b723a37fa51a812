package remote

import (
	"context"
	"time"
)

// watchdog cancels a request when a wait for the network lasts too long. It is
// armed only during such a wait, so that a slow consumer does no harm.
type watchdog struct {
	pace   *pace
	cancel context.CancelCauseFunc
	timer  *time.Timer
	since  time.Time
}

// watch returns a context for one request, which the watchdog cancels with the
// cause errStalled. The caller calls stop when the request's body is closed.
func watch(ctx context.Context, p *pace) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{pace: p, cancel: cancel}
	w.timer = time.AfterFunc(time.Hour, func() { cancel(errStalled) })
	w.timer.Stop()
	return ctx, w
}

func (w *watchdog) arm() { w.armFor(w.pace.patience()) }

func (w *watchdog) armFor(d time.Duration) {
	w.since = time.Now()
	w.timer.Reset(d)
}

// rest ends a wait that does not count, because bytes went out meanwhile. They
// are no progress: what dies on the way is sent again from its start.
func (w *watchdog) rest() { w.timer.Stop() }

// disarm ends a wait that brought n bytes, and returns how long it took.
func (w *watchdog) disarm(n int) time.Duration {
	w.timer.Stop()
	took := time.Since(w.since)
	w.pace.waited(n, took)
	return took
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}
