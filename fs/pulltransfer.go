package fs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"github.com/peelfs/peel/internal/flight"
	"github.com/peelfs/peel/layer"
)

const (
	maxTransfers = 4           // layers that a Puller transfers at a time
	maxRetries   = 5           // of a transfer, beyond those of each request
	firstWait    = time.Second // before the first of them; each further wait is twice as long
)

// transferKey names a transfer. Images that expect different tars of one blob
// do not share it.
type transferKey struct {
	slot   digest.Digest
	diffID digest.Digest
	fill   bool // by ranges, what an index shows to be missing
}

// transfers are those under way of a Puller. One of them is cancelled when
// nobody waits for it any longer, and not because the pull that began it was.
type transfers struct {
	flights *flight.Group[transferKey, struct{}]
	slots   *semaphore.Weighted
	wait    time.Duration // before the first retry
	log     *logrus.Entry

	mu     sync.Mutex // guards meters and how many wait for each
	meters map[transferKey]*sharedMeter
}

// exhausted is why a transfer failed that is not worth another try.
type exhausted struct{ error }

func (e *exhausted) Unwrap() error { return e.error }

type sharedMeter struct {
	*meter
	waiting int
}

func newTransfers(log *logrus.Entry) *transfers {
	return &transfers{
		flights: flight.New[transferKey, struct{}](0),
		slots:   semaphore.NewWeighted(maxTransfers),
		wait:    firstWait, log: log,
		meters: map[transferKey]*sharedMeter{},
	}
}

// join takes part in the transfer named key, which is work unless it is under
// way, and lets l show it. Work may outlive the caller's image, not the Puller.
func (t *transfers) join(ctx context.Context, key transferKey, l *layerProgress, work func(context.Context, *meter) error) error {
	m := t.enter(key)
	defer t.leave(key)
	l.meter.Store(m)
	return t.flights.Do(ctx, flight.Request[transferKey, struct{}]{
		Want: []transferKey{key},
		Got:  func(transferKey, struct{}) {},
		Work: func(ctx context.Context, _ []transferKey, deliver func(transferKey, struct{}, error)) {
			deliver(key, struct{}{}, t.run(ctx, key, func() error { return work(ctx, m) }))
		},
	})
}

func (t *transfers) enter(key transferKey) *meter {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.meters[key]
	if m == nil {
		m = &sharedMeter{meter: newMeter(TransferWaiting)}
		t.meters[key] = m
	}
	m.waiting++
	return m.meter
}

func (t *transfers) leave(key transferKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.meters[key]
	if m.waiting--; m.waiting == 0 {
		delete(t.meters, key)
	}
}

// run does the work when it is its turn, again if it fails in a way that may
// pass. What has arrived by then is not transferred again.
func (t *transfers) run(ctx context.Context, key transferKey, work func() error) error {
	if err := t.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer t.slots.Release(1)
	wait, damaged := t.wait, false
	for n := 0; ; n++ {
		err := work()
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case n == maxRetries:
			return &exhausted{err}
		case errors.Is(err, layer.ErrVerify) && !damaged:
			damaged = true // on its way, maybe; a second time it is the registry's
		case !errdefs.IsUnavailable(err) && !errdefs.IsDeadlineExceeded(err):
			return &exhausted{err}
		}
		t.log.WithError(err).WithField("layer", key.slot).Warnf("transfer failed; going on with it in %s", wait)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // spreads retries, hides nothing
		}
		wait *= 2
	}
}

// close cancels what is under way and waits for its end.
func (t *transfers) close() { t.flights.Close() }
