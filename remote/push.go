package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// cancelTime bounds the request with which an upload is given up.
const cancelTime = 2 * time.Second

// HasBlob asks whether the repository of ref has the blob, at the host that
// would be pushed to.
func (c *Client) HasBlob(ctx context.Context, ref reference.Named, d ocispec.Descriptor) (bool, error) {
	var there bool
	err := c.pushing(ctx, ref, d.Digest, func(t target, p *pace) error {
		var err error
		there, err = c.headBlob(ctx, t, d, p)
		return err
	})
	return there, err
}

// PushBlob stores a blob in the repository of ref unless it is there (OCI
// distribution specification, "POST then PUT"). open is called once for every
// try, with the earlier readers closed; a read that blocks must obey ctx. It
// must yield d.Size bytes. Their digest is checked by the registry.
func (c *Client) PushBlob(ctx context.Context, ref reference.Named, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	return c.pushing(ctx, ref, d.Digest, func(t target, p *pace) error {
		if d.Size < 0 {
			return &fault{class: ErrUsage, text: fmt.Sprintf("%d bytes", d.Size)}
		}
		if there, err := c.headBlob(ctx, t, d, p); err != nil || there {
			return err
		}
		s, err := c.begin(ctx, t, p)
		if err != nil {
			return err
		}
		return s.put(ctx, d.Digest, &payload{size: d.Size, open: open}, p)
	})
}

// MountBlob asks the registry to take a blob over from another of its
// repositories (OCI distribution specification, "Mounting a blob from another
// repository"). It returns false if the registry declined, for whatever
// reason; then the blob must be pushed.
func (c *Client) MountBlob(ctx context.Context, ref, from reference.Named, d digest.Digest) (bool, error) {
	var mounted bool
	err := c.pushing(ctx, ref, d, func(t target, p *pace) error {
		if a, b := reference.Domain(ref), reference.Domain(from); a != b {
			return &fault{class: ErrUsage, text: fmt.Sprintf("mount from %s, which is another registry than %s", b, a)}
		}
		t.grant.from = reference.Path(from)
		var err error
		mounted, err = c.mount(ctx, t, d, p)
		if errors.Is(err, ErrLogin) || errors.Is(err, ErrDenied) || errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	})
	return mounted, err
}

// pushing calls f for the host that may be pushed to, again while the error is
// worth it, and names the blob in the error.
func (c *Client) pushing(ctx context.Context, ref reference.Named, d digest.Digest, f func(target, *pace) error) error {
	q := asking{reference.Domain(ref), push}
	err := d.Validate()
	if err != nil {
		err = &fault{class: ErrUsage, text: "digest", cause: err}
	} else {
		err = c.attempt(ctx, q, newPace(c.o.Retry), func(e *endpoint, p *pace) error {
			return f(target{e, pushing(reference.Path(ref))}, p)
		})
	}
	if err != nil {
		return c.boundary(q.domain, "push "+ref.Name()+"@"+d.String(), err)
	}
	return nil
}

// target is a repository to push to at one host.
type target struct {
	endpoint *endpoint
	grant    grant
}

func (t target) request(method string, at *url.URL) request {
	return request{endpoint: t.endpoint, method: method, grant: t.grant, url: at, header: http.Header{}}
}

func (c *Client) headBlob(ctx context.Context, t target, d ocispec.Descriptor, p *pace) (bool, error) {
	a, err := c.do(ctx, t.request(http.MethodHead, t.endpoint.url(t.grant.repo, "blobs", d.Digest.String())), p)
	if err != nil {
		return false, err
	}
	defer a.Body.Close()
	switch {
	case a.StatusCode == http.StatusOK:
		return true, nil
	case a.StatusCode == http.StatusNotFound, a.hops > 0:
		// Stores that registries redirect to need not know HEAD. Pushing once
		// too often does no harm.
		return false, nil
	}
	return false, t.refusal(a)
}

func (c *Client) mount(ctx context.Context, t target, d digest.Digest, p *pace) (bool, error) {
	at := t.endpoint.url(t.grant.repo, "blobs", "uploads/")
	q := at.Query()
	q.Set("mount", d.String())
	q.Set("from", t.grant.from)
	at.RawQuery = q.Encode()
	a, err := c.do(ctx, t.request(http.MethodPost, at), p)
	if err != nil {
		return false, err
	}
	defer a.Body.Close()
	switch a.StatusCode {
	case http.StatusCreated:
		return true, nil
	case http.StatusAccepted:
		s := &session{client: c, target: t}
		if s.moved(a) == nil {
			s.cancel(ctx)
		}
		return false, nil
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		return false, nil
	}
	return false, t.refusal(a)
}

// refusal classifies an answer to a push that is not a success.
func (t target) refusal(a *answer) *fault {
	host, login := a.url.Host, t.endpoint.login()
	f := statusFault(host, login, a.Response)
	switch a.StatusCode {
	case http.StatusUnauthorized:
		f.text = fmt.Sprintf("%s wants a login for pushes to %s", host, t.grant.repo)
		f.remedy = "log in with an account that may push there: peel login " + login
	case http.StatusForbidden:
		f.text = fmt.Sprintf("%s denies pushes to %s", host, t.grant.repo)
		f.remedy = "log in with an account that may push there: peel login " + login
	case http.StatusNotFound:
		f.text = fmt.Sprintf("%s has no repository %s to push to", host, t.grant.repo)
		f.remedy = "check the name; some registries want a repository to be made before"
	}
	return f
}

// session is an upload that a registry has begun.
type session struct {
	client *Client
	target target
	at     *url.URL // where the next request goes; it may hold secrets
	least  int64    // bytes that a chunk must have but for the last
}

// begin opens a session (OCI distribution specification, end-4a).
func (c *Client) begin(ctx context.Context, t target, p *pace) (*session, error) {
	at := t.endpoint.url(t.grant.repo, "blobs", "uploads/")
	a, err := c.do(ctx, t.request(http.MethodPost, at), p)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusAccepted {
		return nil, t.refusal(a)
	}
	s := &session{client: c, target: t}
	if err := s.moved(a); err != nil {
		return nil, err
	}
	s.least, err = leastChunk(a)
	return s, err
}

// moved notes where an answer wants the next request. An address on another
// host is of an upload service and sees none of the registry's secrets.
func (s *session) moved(a *answer) error {
	location, base := a.Header.Get("Location"), s.target.endpoint.base
	if location == "" {
		if s.at != nil {
			return nil
		}
		return &fault{class: ErrAnswer, text: a.url.Host + " does not say where to upload to"}
	}
	to, err := follow(a.url, a.peer, location)
	if err != nil {
		return err
	}
	if base.Scheme == "https" && to.Scheme == "http" {
		if to.Hostname() != base.Hostname() {
			return &fault{class: ErrAnswer, text: fmt.Sprintf("%s wants the upload over plain HTTP at %s; refused", a.url.Host, to.Host)}
		}
		// It stands behind a proxy that ends TLS, and does not know.
		to.Scheme, to.Host = base.Scheme, base.Host
	}
	s.at = to
	return nil
}

// put ends the upload with what b holds, or with nothing more.
func (s *session) put(ctx context.Context, d digest.Digest, b *payload, p *pace) error {
	at := *s.at
	// Not by way of url.Values, which would reorder a signed query.
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	at.RawQuery += "digest=" + url.QueryEscape(d.String())
	r := s.target.request(http.MethodPut, &at)
	if b != nil && b.size > 0 {
		r.body = b
		r.header.Set("Content-Type", "application/octet-stream")
	}
	a, err := s.client.do(ctx, r, p)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode/100 == 2 {
		return nil
	}
	f := s.target.refusal(a)
	if a.StatusCode == http.StatusNotFound || a.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		// The session is gone, or not in the state we left it in; a new one
		// may do.
		f.class, f.again = ErrUnreachable, true
		f.text, f.remedy = a.url.Host+" lost the upload", ""
	}
	return f
}

// cancel tells the registry to drop what it has (OCI distribution
// specification, end-14). No answer is needed: registries drop abandoned
// uploads some day. It is done even for a caller who has gone.
func (s *session) cancel(ctx context.Context) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer stop()
	once := s.client.o.Retry
	once.Attempts = 1
	a, err := s.client.do(ctx, s.target.request(http.MethodDelete, s.at), newPace(once))
	if err == nil {
		a.Body.Close() //nolint:errcheck // nothing of it is used
	}
}
