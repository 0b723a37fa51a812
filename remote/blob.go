package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is a blob in a registry.
type Blob struct {
	client *Client
	ref    reference.Named
	desc   ocispec.Descriptor
	// turn holds one token; who takes it may ask the registry where the blob
	// is, while the others wait for the answer.
	turn chan struct{}

	mu    sync.Mutex // guards place
	place *location
}

// Open names a blob of the repository of ref. It does no I/O and does not
// look at the descriptor but for digest and size.
func (c *Client) Open(ref reference.Named, d ocispec.Descriptor) *Blob {
	b := &Blob{client: c, ref: ref, desc: d, turn: make(chan struct{}, 1)}
	b.turn <- struct{}{}
	return b
}

// Size is the blob's length in bytes as its descriptor tells.
func (b *Blob) Size() int64 { return b.desc.Size }

// Blob fetches a blob of at most 8 MiB and verifies it.
func (c *Client) Blob(ctx context.Context, ref reference.Named, d ocispec.Descriptor) ([]byte, error) {
	b := c.Open(ref, d)
	if d.Size < 0 || d.Size > maxDocument {
		return nil, c.boundary(b.domain(), b.String(), &fault{class: ErrUsage, text: fmt.Sprintf("%d bytes, at most %d are fetched at once", d.Size, maxDocument)})
	}
	r, err := b.ReadRange(ctx, 0, d.Size)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, d.Size)
	_, err = io.ReadFull(r, raw)
	r.Close() //nolint:errcheck // read to the end or failed already
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(raw); got != d.Digest {
		return nil, c.boundary(b.domain(), b.String(), &fault{class: ErrVerify, text: "content has digest " + got.String()})
	}
	return raw, nil
}

// ReadRange returns the bytes [off, off+n) of the blob. The reader yields
// exactly n bytes or an error; it obeys ctx until it is closed. The whole blob
// is asked for by a plain GET, anything else by Range.
func (b *Blob) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := b.desc.Digest.Validate(); err != nil {
		return nil, b.fail(&fault{class: ErrUsage, text: "digest", cause: err})
	}
	if off < 0 || n < 0 || off > b.desc.Size || n > b.desc.Size-off {
		return nil, b.fail(&fault{class: ErrUsage, text: fmt.Sprintf("bytes [%d, %d+%d) of %d", off, off, n, b.desc.Size)})
	}
	p := newRangePace(b.client.o.Retry)
	r := &rangeReader{
		off: off, end: off + n,
		open: func(off, n int64) (*part, error) { return b.open(ctx, window{off, n, b.desc.Size}, p) },
		resume: func(err error) error {
			if err := p.pause(ctx, err); err != nil {
				return err
			}
			b.client.retrying(b.domain(), err)
			return nil
		},
		wrap: b.fail,
	}
	if err := r.reopen(); err != nil {
		return nil, r.wrap(err)
	}
	return r, nil
}

func (b *Blob) domain() string { return reference.Domain(b.ref) }

func (b *Blob) String() string { return b.ref.Name() + "@" + b.desc.Digest.String() }

func (b *Blob) fail(err error) error { return b.client.boundary(b.domain(), b.String(), err) }

// open asks for the window until the first bytes are on their way.
func (b *Blob) open(ctx context.Context, w window, p *pace) (*part, error) {
	var got *part
	err := b.client.attempt(ctx, asking{b.domain(), pull}, p, func(e *endpoint, p *pace) error {
		var err error
		got, err = b.openAt(ctx, e, w, p)
		return err
	})
	return got, err
}

func (b *Blob) openAt(ctx context.Context, e *endpoint, w window, p *pace) (*part, error) {
	if w.off > maxSkip && e.rangelessTil.Load() > time.Now().UnixNano() {
		return nil, &fault{class: ErrRange, text: e.base.Host + " ignored Range a short while ago"}
	}
	a, err := b.ask(ctx, e, w, p)
	if err != nil {
		return nil, err
	}
	return b.accept(e, a, w)
}

// ask goes where the registry redirected to last, or to the registry. While e
// is not known to serve blobs itself, one reader of the blob asks it and the
// others wait for what it learns.
func (b *Blob) ask(ctx context.Context, e *endpoint, w window, p *pace) (*answer, error) {
	for range 2 {
		if place := b.remembered(e); place != nil {
			if a := b.askPlace(ctx, place, w, p); a != nil {
				return a, nil
			}
		}
		if e.direct.Load() {
			break
		}
		select {
		case <-b.turn:
		case <-ctx.Done():
			return nil, ended(ctx, nil)
		}
		if b.remembered(e) == nil {
			defer func() { b.turn <- struct{}{} }()
			break
		}
		b.turn <- struct{}{}
	}
	return b.askRegistry(ctx, e, w, p)
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
	r := request{endpoint: e, grant: pulling(reference.Path(b.ref)), header: http.Header{}}
	if h := w.header(); h != "" {
		r.header.Set("Range", h)
	}
	return r
}

// askPlace tries a remembered redirect. It returns nil if the place does not
// serve any longer, for whatever reason; the registry knows a better one.
func (b *Blob) askPlace(ctx context.Context, l *location, w window, p *pace) *answer {
	r := b.request(l.from, w)
	r.url, r.guarded = l.url, l.guarded
	a, err := b.client.do(ctx, r, p)
	if err != nil {
		b.forget(l)
		return nil
	}
	if !slices.Contains([]int{http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable}, a.StatusCode) {
		b.forget(l)
		a.Body.Close() //nolint:errcheck // nothing of it is used
		return nil
	}
	return a
}

// askRegistry asks e itself, and remembers where it redirects to.
func (b *Blob) askRegistry(ctx context.Context, e *endpoint, w window, p *pace) (*answer, error) {
	r := b.request(e, w)
	r.url = e.url(r.grant.repo, "blobs", b.desc.Digest.String())
	a, err := b.client.do(ctx, r, p)
	if err != nil {
		return nil, err
	}
	if a.StatusCode == http.StatusOK || a.StatusCode == http.StatusPartialContent {
		e.direct.Store(a.hops == 0)
		b.mu.Lock()
		b.place = nil
		if a.hops > 0 {
			b.place = newLocation(e, a, time.Now())
		}
		b.mu.Unlock()
	}
	return a, nil
}

// accept turns an answer into the part of the window that it holds.
func (b *Blob) accept(e *endpoint, a *answer, w window) (*part, error) {
	host := a.url.Host
	var err error
	switch a.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable, http.StatusBadRequest:
		var piece piece
		piece, err = w.pick(head{a.StatusCode, a.Header.Get("Content-Range"), a.ContentLength})
		if a.StatusCode == http.StatusOK && w.header() != "" && a.Header.Get("Content-Range") == "" {
			e.rangeless()
		}
		if err == nil {
			return &part{body: a.Body, host: host, skip: piece.skip, left: piece.n, lost: func() { b.lost(e) }}, nil
		}
		if f, ok := err.(*fault); ok { //nolint:errorlint // pick returns it bare
			f.text = host + " " + f.text
			if a.StatusCode == http.StatusBadRequest {
				f.cause = message(a.Body)
			}
		}
	default:
		err = statusFault(host, e.login(), a.Response)
	}
	a.Body.Close() //nolint:errcheck // nothing of it is used
	return nil, err
}
