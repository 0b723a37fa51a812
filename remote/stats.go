package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are a client's totals since New.
type Stats struct {
	Requests     int64 // HTTP requests sent, redirects and tokens included
	BytesFetched int64 // body bytes received, of all answers
	BytesSent    int64 // body bytes handed to connections, those sent again included
	Retries      int64
	Hedges       int64 // of the requests, sent because another's first byte was late
	HedgesWon    int64 // of these, answered before that other
	// The last operation that failed for good, empty if none did. Operations
	// that their caller cancelled do not count.
	LastError     string
	LastErrorHost string // the registry as in a reference
	LastErrorAt   time.Time
}

// tally collects Stats.
type tally struct {
	requests, bytes, sent, retries, hedges, hedgesWon atomic.Int64

	mu   sync.Mutex // guards last
	last struct {
		text, host string
		at         time.Time
	}
}

func (t *tally) failed(host string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last.text, t.last.host, t.last.at = err.Error(), host, time.Now()
}

func (t *tally) stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		Requests:      t.requests.Load(),
		BytesFetched:  t.bytes.Load(),
		BytesSent:     t.sent.Load(),
		Retries:       t.retries.Load(),
		Hedges:        t.hedges.Load(),
		HedgesWon:     t.hedgesWon.Load(),
		LastError:     t.last.text,
		LastErrorHost: t.last.host,
		LastErrorAt:   t.last.at,
	}
}

// routeKey is for a *bool in a request's context, which is told whether a proxy
// was asked.
type routeKey struct{}

// meter counts what passes through a transport. It sees to it that hosts that
// want to be left alone are, and that guarded requests leave for public
// addresses only.
type meter struct {
	next    *http.Transport
	tally   *tally
	gate    *gate
	outside outside
	aside   aside
}

func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := m.gate.rests(req.URL.Host); err != nil {
		return nil, err
	}
	if via, ok := req.Context().Value(routeKey{}).(*bool); ok {
		*via = proxied(m.next, req)
	}
	m.tally.requests.Add(1)
	resp, err := m.transport(req).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	m.gate.heed(req.URL.Host, resp)
	resp.Body = &meteredBody{ReadCloser: resp.Body, tally: m.tally}
	return resp, nil
}

// transport is that for a request. A proxy has a name of its own to connect to,
// and looks up the host's by itself.
func (m *meter) transport(req *http.Request) *http.Transport {
	t := m.next
	if isGuarded(req) && !proxied(m.next, req) {
		t = m.outside.of(t)
	}
	if req.Context().Value(asideKey{}) != nil {
		t = m.aside.of(t)
	}
	return t
}

func proxied(t *http.Transport, req *http.Request) bool {
	if t.Proxy == nil {
		return false
	}
	proxy, err := t.Proxy(req)
	return proxy != nil || err != nil
}

// CloseIdleConnections is called by that of http.Client.
func (m *meter) CloseIdleConnections() {
	m.next.CloseIdleConnections()
	m.outside.closeIdle()
	m.aside.closeIdle()
}

// aside makes connections besides those of other transports, on which HTTP/2
// would put all requests: where one is late, so would be the next.
type aside struct {
	mu   sync.Mutex // guards like
	like map[*http.Transport]*http.Transport
}

func (a *aside) of(t *http.Transport) *http.Transport {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.like[t] == nil {
		if a.like == nil {
			a.like = map[*http.Transport]*http.Transport{}
		}
		a.like[t] = t.Clone()
	}
	return a.like[t]
}

func (a *aside) closeIdle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.like {
		t.CloseIdleConnections()
	}
}

type meteredBody struct {
	io.ReadCloser
	tally *tally
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.tally.bytes.Add(int64(n))
	return n, err
}
