package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
)

// maxRenewals is how many tokens one request may use up. The second and later
// ones must have expired; one that is refused is no reason to ask for another.
const maxRenewals = 4

// request begins at the endpoint or where that sent the client before.
type request struct {
	endpoint *endpoint
	method   string // GET if empty
	grant    grant
	url      *url.URL
	guarded  bool        // may not end in a private network
	header   http.Header // Accept, Range, Content-Type
	body     *payload    // nil: none
	size     int64       // bytes of the answer, 0: unknown
}

// answer is what the last hop of a request said. Its body must be closed.
type answer struct {
	*http.Response
	url     *url.URL   // of the last hop
	guarded bool       // the last hop was
	hops    int        // redirects followed
	peer    netip.Addr // of the host; invalid if a proxy was asked
	link    *link      // to the last hop
	dog     *watchdog  // of the body
}

// do sends a request, follows redirects and renews a refused token. Answers
// of any status are returned; errors are of the transport or of the login.
func (c *Client) do(ctx context.Context, r request, p *pace) (*answer, error) {
	r.guarded = r.guarded || r.endpoint.public.Load() && !r.endpoint.owns(r.url)
	fresh, hops, renewals := "", 0, 0
	for {
		authorization, err := c.authorization(ctx, r, fresh, p)
		if err != nil {
			return nil, err
		}
		a, err := c.send(ctx, r.hop(r.url, authorization), p)
		if err != nil {
			return nil, err
		}
		a.hops, a.guarded = hops, r.guarded
		open := public(r.url, a.peer)
		if r.endpoint.owns(r.url) {
			r.endpoint.public.Store(open)
		}
		switch {
		case isRedirect(a.StatusCode):
			hops++
			r.guarded = r.guarded || open
			r.url, err = r.follow(r.url, a, hops)
		case r.refused(a, authorization) && (renewals == 0 || renewals < maxRenewals && r.lapsed()):
			renewals++
			fresh, err = c.another(ctx, r, a, authorization, p)
			if errors.Is(err, errNoOther) {
				return a.plain()
			}
		default:
			return a.plain()
		}
		a.discard()
		if err != nil {
			return nil, err
		}
	}
}

// maxDiscard is what is read of an answer, in bytes, so that its connection can
// be used again.
const maxDiscard = 4 << 10

// discard closes an answer of which nothing is used.
func (a *answer) discard() {
	if a.ContentLength <= maxDiscard {
		io.CopyN(io.Discard, a.Body, maxDiscard) //nolint:errcheck // another connection will do
	}
	a.Body.Close() //nolint:errcheck // nothing of it is used
}

// authorization is the header to send: the fresh one if there is one.
func (c *Client) authorization(ctx context.Context, r request, fresh string, p *pace) (string, error) {
	switch {
	case r.grant.repo == "" || !r.endpoint.owns(r.url):
		return "", nil
	case fresh != "":
		return fresh, nil
	}
	return c.header(r.forToken(ctx), r.endpoint.authority(r.grant), p)
}

// forToken is the context to ask for a token in: a public registry may not
// send the client into a private network for it.
func (r request) forToken(ctx context.Context) context.Context {
	if r.endpoint.public.Load() {
		return guarded(ctx, r.endpoint)
	}
	return ctx
}

// refused reports whether another token may help. Some registries say 403 to
// one that has expired.
func (r request) refused(a *answer, authorization string) bool {
	if r.grant.repo == "" || !r.endpoint.owns(r.url) {
		return false
	}
	reads := r.method == "" || r.method == http.MethodHead
	return a.StatusCode == http.StatusUnauthorized ||
		a.StatusCode == http.StatusForbidden && reads && strings.HasPrefix(authorization, "Bearer ")
}

// lapsed reports whether the token has come to its end: while the request that
// carried it waited for its turn.
func (r request) lapsed() bool {
	_, good, _ := r.endpoint.authority(r.grant).current()
	return !good
}

// errNoOther: what was refused is all there is.
var errNoOther = errors.New("no other token")

// another returns another header than the refused one.
func (c *Client) another(ctx context.Context, r request, a *answer, stale string, p *pace) (string, error) {
	auths := r.endpoint.authority(r.grant)
	want := refusal{stale: stale, challenge: auth.ParseAuthHeader(a.Header)}
	denied := a.StatusCode == http.StatusForbidden
	if len(want.challenge) == 0 && denied {
		_, _, want.challenge = auths.current()
	}
	if len(want.challenge) == 0 {
		return "", errNoOther
	}
	fresh, err := c.renew(r.forToken(ctx), auths, want, p)
	if err == nil && fresh == stale || err != nil && denied && !transient(err) && ctx.Err() == nil {
		return "", errNoOther
	}
	return fresh, err
}

// plain is a, unless its content is not as it is stored. The digest would not
// be right, and neither would the bytes of a range.
func (a *answer) plain() (*answer, error) {
	encoding := a.Header.Get("Content-Encoding")
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity", "aws-chunked": // the last is a mark that some tools leave in S3
		return a, nil
	}
	if a.StatusCode/100 != 2 {
		a.Body = withoutBody{a.Body} // words that cannot be read
		return a, nil
	}
	a.Body.Close() //nolint:errcheck // nothing of it is used
	return nil, &fault{
		class:  ErrAnswer,
		text:   fmt.Sprintf("%s sends the content with Content-Encoding %.40q, although it was asked for identity", a.url.Host, encoding),
		remedy: "a proxy in between must not compress what a registry serves",
	}
}

// withoutBody is a body that need only be closed.
type withoutBody struct{ io.Closer }

func (withoutBody) Read([]byte) (int, error) { return 0, io.EOF }

// follow returns where the redirect a leads, the hops-th in a row.
func (r request) follow(at *url.URL, a *answer, hops int) (*url.URL, error) {
	if hops > maxHops {
		return nil, &fault{class: ErrAnswer, text: r.endpoint.base.Host + " redirects without end", remedy: "look where it leads: " + redact(at) + "; a mirror in hosts.toml, or a proxy, may lead back to itself"}
	}
	// Any other redirect turns what is not GET or HEAD into GET (RFC 9110
	// section 15.4).
	kept := a.StatusCode == http.StatusTemporaryRedirect || a.StatusCode == http.StatusPermanentRedirect
	if !kept && r.method != "" && r.method != http.MethodHead {
		return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s redirects %s with %d", at.Host, r.method, a.StatusCode)}
	}
	return follow(at, a.peer, a.Header.Get("Location"))
}

// hop is one HTTP request of a do.
type hop struct {
	client   *http.Client
	method   string
	url      *url.URL
	endpoint *endpoint
	guarded  bool
	header   http.Header
	body     *payload
	size     int64
}

func (r request) hop(at *url.URL, authorization string) hop {
	own := r.endpoint.owns(at)
	h := hop{
		client: r.endpoint.client, method: cmp.Or(r.method, http.MethodGet), url: at,
		endpoint: r.endpoint, guarded: r.guarded,
		// Else net/http, and proxies, take it that anything is welcome.
		header: http.Header{"Accept-Encoding": {"identity"}},
		body:   r.body,
		size:   r.size,
	}
	if own {
		maps.Copy(h.header, r.endpoint.header)
		if authorization != "" {
			h.header.Set("Authorization", authorization)
		}
	} else if r.endpoint.base.Scheme == at.Scheme {
		// Some stores want to know who sent the reader.
		h.header.Set("Referer", redact(r.endpoint.base))
	}
	maps.Copy(h.header, r.header)
	return h
}
