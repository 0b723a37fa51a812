package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
)

// request begins at the endpoint or where that sent the client before.
type request struct {
	endpoint *endpoint
	method   string // GET if empty
	grant    grant
	url      *url.URL
	header   http.Header // Accept, Range, Content-Type
	body     *payload    // nil: none
}

// answer is what the last hop of a request said. Its body must be closed.
type answer struct {
	*http.Response
	url  *url.URL // of the last hop
	hops int      // redirects followed
	peer netip.Addr
}

// do sends a request, follows redirects and renews the token once. Answers
// of any status are returned; errors are of the transport or of the login.
func (c *Client) do(ctx context.Context, r request, p *pace) (*answer, error) {
	at, renewed, fresh := r.url, false, ""
	for hops := 0; ; {
		own := r.endpoint.owns(at)
		authorization := fresh
		switch {
		case !own || r.grant.repo == "":
			authorization = ""
		case fresh == "":
			var err error
			if authorization, err = c.header(ctx, r.endpoint.authority(r.grant), p); err != nil {
				return nil, err
			}
		}
		a, err := c.send(ctx, r.hop(at, authorization), p)
		if err != nil {
			return nil, err
		}
		a.hops = hops
		switch {
		case isRedirect(a.StatusCode):
			hops++
			at, err = r.follow(at, a, hops)
		case a.StatusCode == http.StatusUnauthorized && own && r.grant.repo != "" && !renewed:
			renewed = true
			want := refusal{stale: authorization, challenge: auth.ParseAuthHeader(a.Header)}
			if len(want.challenge) == 0 {
				return a, nil
			}
			fresh, err = c.renew(ctx, r.endpoint.authority(r.grant), want, p)
			if err == nil && fresh == authorization {
				return a, nil
			}
		default:
			return a, nil
		}
		a.Body.Close() //nolint:errcheck // nothing of it is used
		if err != nil {
			return nil, err
		}
	}
}

// follow returns where the redirect a leads, the hops-th in a row.
func (r request) follow(at *url.URL, a *answer, hops int) (*url.URL, error) {
	if hops > maxHops {
		return nil, &fault{class: ErrAnswer, text: r.endpoint.base.Host + " redirects without end"}
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
	client *http.Client
	method string
	url    *url.URL
	header http.Header
	body   *payload
}

func (r request) hop(at *url.URL, authorization string) hop {
	h := hop{client: r.endpoint.client, method: cmp.Or(r.method, http.MethodGet), url: at, header: http.Header{}, body: r.body}
	if r.endpoint.owns(at) {
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

func (c *Client) send(ctx context.Context, h hop, p *pace) (*answer, error) {
	release, err := c.limiter.acquire(ctx, h.url.Host)
	if err != nil {
		return nil, err
	}
	ctx, dog := watch(ctx, p)
	a := &answer{url: h.url}
	trace := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { a.peer = peer(i) },
	})
	resp, err := c.exchange(trace, h, dog) //nolint:bodyclose // the answer is the caller's to close
	if err != nil {
		dog.stop()
		release()
		return nil, err
	}
	c.warn(h.url.Host, resp.Header)
	resp.Body = &body{
		ctx:  func() error { return context.Cause(ctx) },
		host: h.url.Host, rc: resp.Body, dog: dog, release: release,
	}
	a.Response = resp
	return a, nil
}

// exchange sends one request under the watchdog's eye and waits for the answer.
func (c *Client) exchange(ctx context.Context, h hop, dog *watchdog) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, h.method, h.url.String(), http.NoBody)
	if err != nil {
		return nil, &fault{class: ErrAnswer, text: "unusable address " + redact(h.url)}
	}
	req.Header = h.header
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.o.UserAgent)
	}
	var out *outgoing
	if h.body != nil {
		if out, err = h.body.send(dog, &c.tally); err != nil {
			return nil, err
		}
		req.Body, req.ContentLength = out, h.body.size
	}
	if h.body == nil && h.method == http.MethodPut {
		dog.armFor(dog.pace.settling())
	} else {
		dog.arm()
	}
	resp, err := h.client.Do(req)
	unsent := out.end()
	dog.disarm(0)
	if err == nil {
		return resp, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if unsent != nil {
		return nil, unsent
	}
	return nil, transportFault(h.url.Host, err)
}

func peer(i httptrace.GotConnInfo) netip.Addr {
	conn := i.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}
