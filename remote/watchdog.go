package remote

import (
	"context"
	"errors"
	"io"
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

// disarm ends a wait that brought n bytes.
func (w *watchdog) disarm(n int) {
	w.timer.Stop()
	w.pace.waited(n, time.Since(w.since))
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// body is an answer's body under the watchdog's eye.
type body struct {
	ctx     func() error // why the request's context is done, if it is
	host    string
	rc      io.ReadCloser
	dog     *watchdog
	release func()
}

// Read returns io.EOF at the end of the body, or a fault.
func (b *body) Read(p []byte) (int, error) {
	b.dog.arm()
	n, err := b.rc.Read(p)
	b.dog.disarm(n)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if cause := b.ctx(); cause != nil {
		err = cause
	}
	return n, transportFault(b.host, err)
}

func (b *body) Close() error {
	err := b.rc.Close()
	b.dog.stop()
	b.release()
	return err
}
