package remote

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/distribution/reference"
)

// ask goes where the registry redirected to last, or to the registry. While e
// is not known to serve blobs itself, one reader of the blob asks it and the
// others wait for what it learns.
func (b *Blob) ask(ctx context.Context, e *endpoint, w window, p *pace) (*answer, error) {
	for range 2 {
		if place := b.remembered(e); place != nil {
			if a, err := b.askPlace(ctx, place, w, p); a != nil || err != nil {
				return a, err
			}
		}
		if e.direct.Load() {
			break
		}
		done, err := b.await(ctx, p.patience())
		if err != nil {
			return nil, err
		}
		if b.remembered(e) == nil {
			defer done()
			break
		}
		done()
	}
	a, err := b.askRegistry(ctx, e, w, p)
	if err == nil && a.hops > 0 && lapsed(a.StatusCode) {
		// The address ended while this waited for its turn at the other host.
		a.Body.Close() //nolint:errcheck // nothing of it is used
		return b.askRegistry(ctx, e, w, p)
	}
	return a, err
}

// await waits for the turn, but not longer than for a byte: the registry may not
// answer, and those who wait have a budget each. The caller calls done once.
func (b *Blob) await(ctx context.Context, patience time.Duration) (done func(), err error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-b.turn:
		return func() { b.turn <- struct{}{} }, nil
	case <-late.C:
		return func() {}, nil
	case <-ctx.Done():
		return nil, ended(ctx, nil)
	}
}

// lapsed reports whether a place that a registry led to says that it does not
// serve any longer.
func lapsed(status int) bool {
	return slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone}, status)
}

// remembered is where e redirected to last, nil if unknown or expired.
func (b *Blob) remembered(e *endpoint) *location {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.place == nil || b.place.from != e || !b.place.usable(time.Now()) {
		return nil
	}
	return b.place
}

func (b *Blob) forget(l *location) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.place == l {
		b.place = nil
	}
}

// lost notes that a body from e died: another mirror, or another redirect,
// may do better.
func (b *Blob) lost(e *endpoint) {
	e.failed()
	if l := b.remembered(e); l != nil {
		b.forget(l)
	}
}

func (b *Blob) request(e *endpoint, w window) request {
	r := request{endpoint: e, header: http.Header{}, size: w.n}
	if e.foreign() {
		r.url, r.guarded = e.base, b.foreign.permits[e] != byName
	} else {
		r.grant = pulling(reference.Path(b.ref))
		r.url = e.url(r.grant.repo, "blobs", b.desc.Digest.String())
	}
	if h := w.header(); h != "" {
		r.header.Set("Range", h)
	}
	return r
}

// askPlace tries a remembered redirect. It returns neither answer nor error if
// the place does not serve any longer, for whatever reason; the registry knows
// a better one. Who wants to be left alone for a while still serves.
func (b *Blob) askPlace(ctx context.Context, l *location, w window, p *pace) (*answer, error) {
	r := b.request(l.from, w)
	r.url, r.guarded = l.url, l.guarded
	a, err := b.client.do(ctx, r, p)
	if f := (*fault)(nil); ctx.Err() != nil || errors.As(err, &f) && f.after > 0 ||
		errors.Is(err, errOvertaken) || errors.Is(err, errNotNow) {
		return nil, err
	}
	if err != nil {
		b.forget(l)
		return nil, nil
	}
	switch a.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return a, nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if a.Header.Get("Retry-After") != "" {
			return a, nil
		}
	}
	b.forget(l)
	a.Body.Close() //nolint:errcheck // nothing of it is used
	return nil, nil
}

// askRegistry asks e itself, and remembers where it redirects to.
func (b *Blob) askRegistry(ctx context.Context, e *endpoint, w window, p *pace) (*answer, error) {
	a, err := b.client.do(ctx, b.request(e, w), p)
	if err != nil {
		return nil, err
	}
	if a.StatusCode == http.StatusOK || a.StatusCode == http.StatusPartialContent {
		e.direct.Store(a.hops == 0)
		b.mu.Lock()
		if a.hops > 0 {
			b.place = newLocation(e, a, time.Now())
		} else if b.place != nil && b.place.from == e {
			b.place = nil
		}
		b.mu.Unlock()
	}
	return a, nil
}
