package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	chunkSize = 16 << 20 // bytes that are sent, and kept until they arrived
	// A chunk that outgrows this gets all its memory at once; growing by and by
	// would take twice as much.
	smallChunk = 256 << 10
	// Registries may want larger chunks; up to this size they get them.
	maxChunkSize = 128 << 20
)

// errDone answers the use of an upload after Commit or Close.
var errDone = errors.New("upload is over")

// Upload is a blob that is sent while it is made. It belongs to one goroutine
// and must be closed.
type Upload struct {
	client  *Client
	ref     reference.Named
	session *session
	size    int    // of a chunk
	chunk   []byte // the end of what was written, at most size bytes
	off     int64  // of the chunk's first byte in the blob
	err     error  // why no more can be written

	// With the context of Client.Upload, which bounds the upload's life.
	flush  func() error
	cancel func()
}

// Upload begins to push a blob whose digest is not known yet (OCI distribution
// specification, "Pushing a blob in chunks"). It keeps one chunk of 16 MiB, or
// what the registry demands, in memory, and sends a chunk again, from where the
// registry says it got to, when a connection fails. ctx bounds all writes.
func (c *Client) Upload(ctx context.Context, ref reference.Named) (*Upload, error) {
	u := &Upload{client: c, ref: ref}
	err := c.attempt(ctx, asking{reference.Domain(ref), push}, newPace(c.o.Retry), func(e *endpoint, p *pace) error {
		var err error
		u.session, err = c.begin(ctx, target{e, pushing(reference.Path(ref))}, p)
		return err
	})
	if err != nil {
		return nil, u.fail(err)
	}
	u.size = int(max(chunkSize, u.session.least))
	u.flush = func() error { return u.send(ctx) }
	u.cancel = func() { u.session.cancel(ctx) }
	return u, nil
}

func (u *Upload) fail(err error) error {
	return u.client.boundary(reference.Domain(u.ref), "push to "+u.ref.Name(), err)
}

// Write sends p when a chunk is full. An error is final.
func (u *Upload) Write(p []byte) (int, error) {
	n := 0
	for {
		if u.err != nil {
			return n, u.err
		}
		k := min(len(p)-n, u.size-len(u.chunk))
		if len(u.chunk)+k > smallChunk && cap(u.chunk) < u.size {
			u.chunk = append(make([]byte, 0, u.size), u.chunk...)
		}
		u.chunk = append(u.chunk, p[n:n+k]...)
		n += k
		if n == len(p) {
			return n, nil
		}
		// Only now: a blob of one chunk can be sent with a single request.
		if err := u.flush(); err != nil {
			u.err = u.fail(err)
		}
	}
}

// Commit sends the rest and ends the upload; the blob must have the digest d.
func (u *Upload) Commit(ctx context.Context, d digest.Digest) error {
	if u.err != nil {
		return u.err
	}
	err := d.Validate()
	switch {
	case err != nil:
		err = &fault{class: ErrUsage, text: "digest", cause: err}
	case u.off == 0:
		return u.commitWhole(ctx, d)
	default:
		if err = u.send(ctx); err == nil {
			err = u.finish(ctx, d)
		}
	}
	if err != nil {
		u.err = u.fail(err)
		return u.err
	}
	u.err, u.cancel, u.chunk = errDone, nil, nil
	return nil
}

// commitWhole sends a blob of one chunk, of which nothing was sent before.
func (u *Upload) commitWhole(ctx context.Context, d digest.Digest) error {
	b := &payload{size: int64(len(u.chunk)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(u.chunk)), nil
	}}
	err := u.session.put(ctx, d, b, newPace(u.client.o.Retry))
	switch {
	case transient(err) && ctx.Err() == nil:
		u.client.retrying(reference.Domain(u.ref), err)
		if err = u.client.PushBlob(ctx, u.ref, ocispec.Descriptor{Digest: d, Size: b.size}, b.open); err != nil {
			u.err = err
			return err
		}
	case err != nil:
		if ctx.Err() != nil {
			err = ended(ctx, err)
		}
		u.err = u.fail(err)
		return u.err
	default:
		u.cancel = nil
	}
	u.err, u.chunk = errDone, nil
	return nil
}

// finish asks the registry to make a blob of what it has.
func (u *Upload) finish(ctx context.Context, d digest.Digest) error {
	p := newPace(u.client.o.Retry)
	for {
		err := u.session.put(ctx, d, nil, p)
		if err == nil {
			return nil
		}
		if final := p.pause(ctx, err); final != nil {
			return final
		}
		u.client.retrying(reference.Domain(u.ref), err)
		// It may have been done, and the answer lost.
		if there, err := u.client.headBlob(ctx, u.session.target, ocispec.Descriptor{Digest: d}, p); err == nil && there {
			return nil
		}
	}
}

// send makes the registry take the whole chunk, and empties it.
func (u *Upload) send(ctx context.Context) error {
	p := newPace(u.client.o.Retry)
	end := u.off + int64(len(u.chunk))
	for at := u.off; at < end; {
		next, err := u.session.patch(ctx, u.chunk[at-u.off:], at, p)
		for err != nil {
			if final := p.pause(ctx, err); final != nil {
				return final
			}
			u.client.retrying(reference.Domain(u.ref), err)
			next, err = u.session.state(ctx, at, p)
		}
		if next < u.off || next > end {
			return &fault{class: ErrAnswer, text: fmt.Sprintf("%s has %d bytes of the upload, not %d to %d", u.session.at.Host, next, u.off, end)}
		}
		p.progress(max(0, next-at))
		at = next
	}
	u.off, u.chunk = end, u.chunk[:0]
	return nil
}

// Close gives the upload up unless it was committed. It may be called more
// than once.
func (u *Upload) Close() error {
	if u.cancel != nil {
		u.cancel()
		u.cancel = nil
	}
	if u.err == nil {
		u.err = errDone
	}
	u.chunk = nil
	return nil
}

// patch sends b, which begins at off, and returns how many bytes of the blob
// the registry has then.
func (s *session) patch(ctx context.Context, b []byte, off int64, p *pace) (int64, error) {
	r := s.target.request(http.MethodPatch, s.at)
	end := off + int64(len(b))
	r.header.Set("Content-Type", "application/octet-stream")
	r.header.Set("Content-Range", fmt.Sprintf("%d-%d", off, end-1)) // not RFC 9110's form
	r.body = &payload{size: int64(len(b)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
	a, err := s.client.do(ctx, r, p)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	if a.StatusCode/100 == 2 {
		// What the range says beyond that is no reason to doubt a success:
		// some count from the start of the chunk.
		if got, ok := received(a.Header); ok && off < got && got < end {
			end = got
		}
		return end, s.moved(a)
	}
	f := s.target.refusal(a)
	switch a.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		// An earlier try got further than its connection could tell.
		f.class, f.again = ErrUnreachable, true
	case http.StatusNotFound:
		f.class, f.remedy, f.text = ErrUnreachable, "", a.url.Host+" lost the upload"
	}
	return 0, f
}

// state asks how many bytes of the blob the registry has (OCI distribution
// specification, end-13); off if it does not say.
func (s *session) state(ctx context.Context, off int64, p *pace) (int64, error) {
	a, err := s.client.do(ctx, s.target.request(http.MethodGet, s.at), p)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	if a.StatusCode/100 != 2 {
		f := s.target.refusal(a)
		f.text = a.url.Host + " does not say how far the upload got: " + a.Status
		return 0, f
	}
	got, ok := received(a.Header)
	switch {
	case !ok:
		got = off
	case got == 1 && off == 0:
		// 0-0 is what registries say of an empty upload.
		got = 0
	}
	return got, s.moved(a)
}

// received reads a Range header of an answer: "0-9" are ten bytes.
func received(h http.Header) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(h.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || n < 0 {
		return 0, false
	}
	return n + 1, true
}

// leastChunk reads OCI-Chunk-Min-Length, which few registries send.
func leastChunk(a *answer) (int64, error) {
	v := a.Header.Get("OCI-Chunk-Min-Length")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > maxChunkSize {
		return 0, &fault{class: ErrAnswer, text: fmt.Sprintf("%s wants chunks of %.20q bytes, at most %d are sent", a.url.Host, v, maxChunkSize)}
	}
	return n, nil
}
