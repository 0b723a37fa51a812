package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is a blob in a registry.
type Blob struct {
	client *Client
	ref    reference.Named
	desc   ocispec.Descriptor
	// Where it lies besides the registry.
	foreign foreign
	// turn holds one token; who takes it may ask the registry where the blob
	// is, while the others wait for the answer.
	turn chan struct{}

	served atomic.Pointer[link] // to the host of the last answer

	mu    sync.Mutex // guards place
	place *location
}

// Open names a blob of the repository of ref. It does no I/O and does not
// look at the descriptor but for digest, size and urls; the latter are asked
// before the registry as far as Options.ForeignHosts allow.
func (c *Client) Open(ref reference.Named, d ocispec.Descriptor) *Blob {
	b := &Blob{client: c, ref: ref, desc: d, foreign: c.elsewhere(d), turn: make(chan struct{}, 1)}
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
	p := newPace(c.o.Retry)
	for {
		raw, err := b.whole(ctx, p)
		if err == nil {
			return raw, nil
		}
		if again := p.pause(ctx, p.doubt(err)); again != nil {
			return nil, b.fail(again)
		}
		c.retrying(b.domain(), err)
	}
}

// whole reads the blob and verifies it.
func (b *Blob) whole(ctx context.Context, p *pace) ([]byte, error) {
	r := b.reader(ctx, p)
	r.end = b.desc.Size
	r.wrap = func(err error) error { return err }
	defer r.Close()
	raw := make([]byte, b.desc.Size)
	err := r.reopen()
	if err == nil {
		_, err = io.ReadFull(r, raw)
	}
	if err != nil {
		return nil, err
	}
	if got := b.desc.Digest.Algorithm().FromBytes(raw); got != b.desc.Digest {
		if r.cur != nil {
			r.cur.lost()
		}
		return nil, &fault{class: ErrVerify, text: "content has digest " + got.String()}
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
	r := b.reader(ctx, newRangePace(b.client.o.Retry))
	r.off, r.end = off, off+n
	if err := r.reopen(); err != nil {
		return nil, r.wrap(err)
	}
	return r, nil
}

// reader is one of an empty range.
func (b *Blob) reader(ctx context.Context, p *pace) *rangeReader {
	return &rangeReader{
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
}

func (b *Blob) domain() string { return reference.Domain(b.ref) }

func (b *Blob) String() string { return b.ref.Name() + "@" + b.desc.Digest.String() }

func (b *Blob) fail(err error) error {
	return b.client.boundary(b.domain(), b.String(), b.foreign.besides(advise(b.domain(), err)))
}

// open asks for the window until the first bytes are on their way.
func (b *Blob) open(ctx context.Context, w window, p *pace) (*part, error) {
	var got *part
	q := asking{b.domain(), pull}
	err := b.client.insist(ctx, q, p, func(r *registry) error {
		ch := choice{
			domain:    r.domain,
			hosts:     w.order(slices.Concat(b.foreign.endpoints, r.candidates(q.need))),
			authority: slices.Concat(r.endpoints, b.foreign.endpoints),
		}
		return b.client.round(ctx, ch, func(e *endpoint) error {
			var err error
			got, err = b.openRacing(ctx, e, w, p, ch.hosts)
			return err
		})
	})
	if errors.Is(err, ErrNotFound) {
		err = b.foreign.missing(err)
	}
	return got, err
}

// order puts hosts that ignored Range lately behind the others, and those that
// failed lately last.
func (w window) order(hosts []*endpoint) []*endpoint {
	now := time.Now()
	slices.SortStableFunc(hosts, func(a, b *endpoint) int { return w.rank(a, now) - w.rank(b, now) })
	return hosts
}

func (w window) rank(e *endpoint, now time.Time) int {
	switch {
	case e.downUntil.Load() > now.UnixNano():
		return 2
	case w.header() != "" && e.rangelessTil.Load() > now.UnixNano():
		return 1
	}
	return 0
}

func (b *Blob) openAt(ctx context.Context, e *endpoint, w window, p *pace) (*part, error) {
	if w.off > maxSkip && e.rangelessTil.Load() > time.Now().UnixNano() {
		return nil, &fault{class: ErrRange, text: e.base.Host + " ignored Range a short while ago"}
	}
	a, err := b.ask(ctx, e, w, p)
	if err != nil {
		return nil, err
	}
	got, err := b.accept(e, a, w)
	if err != nil {
		return nil, err
	}
	b.served.Store(a.link)
	e.serving.Store(a.link)
	got.dog, got.progress = a.dog, p.progress
	got.lost = func() {
		if ctx.Err() == nil { // else who read has gone, not the host
			b.lost(e)
		}
	}
	return got, nil
}

// accept turns an answer into the part of the window that it holds.
func (b *Blob) accept(e *endpoint, a *answer, w window) (*part, error) {
	host := a.url.Host
	var err error
	switch a.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable, http.StatusBadRequest:
		if a.StatusCode == http.StatusOK && w.header() != "" && a.Header.Get("Content-Range") == "" {
			e.rangeless()
		}
		var body io.ReadCloser
		var crange string
		if body, crange, err = onlyPart(a); err != nil {
			break
		}
		var piece piece
		if piece, err = w.pick(head{a.StatusCode, crange, a.ContentLength}); err == nil {
			return &part{body: body, host: host, skip: piece.skip, left: piece.n}, nil
		}
		if f, ok := err.(*fault); ok { //nolint:errorlint // pick returns it bare
			f.text = host + " " + f.text
			if a.StatusCode == http.StatusBadRequest {
				f.cause = message(a.Body)
			}
		}
	default:
		f := statusFault(host, e.login(), a.Response)
		if e.foreign() {
			f.remedy = "" // nobody can log in there
		}
		err = f
	}
	a.Body.Close() //nolint:errcheck // nothing of it is used
	return nil, err
}
