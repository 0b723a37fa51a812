package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync/atomic"
	"time"
)

// send sends one request, when it is its turn, and waits for the answer.
func (c *Client) send(ctx context.Context, h hop, p *pace) (*answer, error) {
	slot, err := c.turn(ctx, h)
	if err != nil {
		return nil, err
	}
	watched, dog := watch(ctx, p)
	if h.guarded {
		watched = guarded(watched, h.endpoint)
	}
	if payer(ctx) != nil && slot.link.shared.Load() {
		watched = context.WithValue(watched, asideKey{}, true)
	}
	a := &answer{url: h.url, link: slot.link, dog: dog}
	var proxied bool
	var t timing
	race := raceOf(ctx)
	trace := httptrace.WithClientTrace(context.WithValue(watched, routeKey{}, &proxied), t.trace(func(i httptrace.GotConnInfo) {
		a.peer = peer(i)
		race.begin(ctx, slot.link, dog)
	}))
	resp, err := c.exchange(trace, h, dog)
	if race.lost() {
		err = errOvertaken
		if resp != nil {
			resp.Body.Close() //nolint:errcheck // nothing of it is used
		}
	}
	if err != nil {
		dog.stop()
		slot.release()
		return nil, err
	}
	if d, known := t.roundTrip(); known && h.body == nil {
		slot.link.trips.add(d)
	}
	slot.link.shared.Store(resp.ProtoMajor > 1)
	c.warn(h.url.Host, resp.Header)
	if proxied {
		a.peer = netip.Addr{} // where a proxy stands says nothing of the host
	}
	resp.Body = &body{
		ctx:  func() error { return context.Cause(watched) },
		done: watched.Done(),
		host: h.url.Host, rc: resp.Body, dog: dog, slot: slot,
		stream: stream{flow: &slot.link.flow, after: t.sent()},
	}
	a.Response = resp
	return a, nil
}

// turn waits until the request may be sent. One that is sent because another
// is late does not wait, and is paid for.
func (c *Client) turn(ctx context.Context, h hop) (*slot, error) {
	payer := payer(ctx)
	if payer == nil {
		s, err := c.limiter.acquire(ctx, h.url.Host, h.size)
		if err == nil {
			s.link.requests.Add(1)
			s.link.allowed.earn()
		}
		return s, err
	}
	s, err := c.limiter.try(ctx, h.url.Host, h.size)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errNotNow
	}
	if !payer.allowed.spend() {
		s.release()
		return nil, errNotNow
	}
	s.link.requests.Add(1)
	s.link.hedges.Add(1)
	c.tally.hedges.Add(1)
	return s, nil
}

// timing is when what happened to a request. Transports tell from goroutines of
// their own, and may still do so after the answer.
type timing struct {
	begin       time.Time
	reused      bool         // the connection
	wrote, came atomic.Int64 // the request, the first byte; nanoseconds since begin
}

func (t *timing) trace(conn func(httptrace.GotConnInfo)) *httptrace.ClientTrace {
	t.begin = time.Now()
	return &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			t.reused = i.Reused
			conn(i)
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { t.wrote.Store(int64(time.Since(t.begin)) + 1) },
		GotFirstResponseByte: func() { t.came.Store(int64(time.Since(t.begin)) + 1) },
	}
}

// roundTrip is that of the answer. That of a new connection is not known to be
// like those to come: servers and those between get ready for it.
func (t *timing) roundTrip() (d time.Duration, known bool) {
	wrote, came := t.wrote.Load(), t.came.Load()
	if !t.reused || wrote == 0 || came < wrote {
		return 0, false
	}
	return time.Duration(came - wrote), true
}

// sent is before the first byte of the answer left its host.
func (t *timing) sent() time.Time { return t.begin.Add(time.Duration(t.wrote.Load())) }

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
	if inside := (insideError{}); h.endpoint.foreign() && h.endpoint.owns(h.url) && errors.As(err, &inside) {
		return nil, insideForeign(h.url.Host, inside)
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
