//go:build linux

package testkit

import (
	"context"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Request is one request that a proxy has answered.
type Request struct {
	Method, Path, Range string
	Status              int
	Bytes               int64 // of the body, as sent
	Start, End          time.Time
}

// Blob reports whether the request was for a blob.
func (r Request) Blob() bool { return strings.Contains(r.Path, "/blobs/") }

// A Link is the line between the proxy and its clients.
type Link struct {
	Delay          time.Duration // before each answer
	BytesPerSecond int64         // shared by all answers; 0: no limit
}

// A Fault changes the answers to some requests.
type Fault struct {
	Path  string // part of the path; "" is every request
	Times int    // how many requests it strikes; 0: all
	Do    func(next http.Handler) http.Handler
}

// A Proxy stands before a registry: it counts, delays and breaks.
type Proxy struct {
	*server
	next http.Handler

	mu       sync.Mutex // guards what follows
	link     Link
	lineFree time.Time // when the shared line has sent all it was given
	faults   []*Fault
	log      []Request
	inflight int
	idle     *sync.Cond
}

// NewProxy starts a proxy before host.
func NewProxy(t testing.TB, host string) *Proxy {
	t.Helper()
	upstream := &url.URL{Scheme: "http", Host: host}
	transport := &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	p := &Proxy{next: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host // the registry makes Location headers of it
		},
		Transport: transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
	}}
	p.idle = sync.NewCond(&p.mu)
	p.server = newServer(t, http.HandlerFunc(p.serve))
	return p
}

// Ref names an image as it is reached through the proxy.
func (p *Proxy) Ref(repo, tag string) string { return p.Host() + "/" + repo + ":" + tag }

// SetLink changes the line.
func (p *Proxy) SetLink(l Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = l
}

// Inject adds a fault. The first that fits a request strikes.
func (p *Proxy) Inject(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, &f)
}

// Heal takes all faults away.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

// Log waits until nothing is under way and returns the requests answered
// since the last call, by start.
func (p *Proxy) Log() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.inflight > 0 {
		p.idle.Wait()
	}
	log := p.log
	p.log = nil
	slices.SortFunc(log, func(a, b Request) int { return a.Start.Compare(b.Start) })
	return log
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	entry := Request{Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"), Start: time.Now()}
	next, delay := p.begin(r)
	c := &counter{ResponseWriter: w, proxy: p, ctx: r.Context()}
	defer func() {
		entry.End, entry.Status, entry.Bytes = time.Now(), c.status, c.bytes
		p.end(entry)
	}()
	if wait(r.Context(), delay) == nil {
		next.ServeHTTP(c, r)
	}
}

func (p *Proxy) begin(r *http.Request) (http.Handler, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inflight++
	for i, f := range p.faults {
		if !strings.Contains(r.URL.Path, f.Path) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				p.faults = slices.Delete(p.faults, i, i+1)
			}
		}
		return f.Do(p.next), p.link.Delay
	}
	return p.next, p.link.Delay
}

func (p *Proxy) end(r Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, r)
	if p.inflight--; p.inflight == 0 {
		p.idle.Broadcast()
	}
}

// turn is how long n bytes must wait for the line.
func (p *Proxy) turn(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.BytesPerSecond == 0 {
		return 0
	}
	now := time.Now()
	if p.lineFree.Before(now) {
		p.lineFree = now
	}
	p.lineFree = p.lineFree.Add(time.Duration(n) * time.Second / time.Duration(p.link.BytesPerSecond))
	return p.lineFree.Sub(now)
}

// counter counts what goes out and holds it back for the line.
type counter struct {
	http.ResponseWriter
	proxy  *Proxy
	ctx    context.Context //nolint:containedctx // an http.ResponseWriter lives as long as its request
	status int
	bytes  int64
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if err := wait(c.ctx, c.proxy.turn(len(b))); err != nil {
		return 0, err
	}
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	c.Flush()
	return n, err
}

// Unwrap is for http.ResponseController.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Flush sends what was written.
func (c *counter) Flush() { _ = http.NewResponseController(c.ResponseWriter).Flush() }

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Rounds is the length of the longest chain of requests each of which began
// after the one before had ended: how many round trips had to be waited for.
func Rounds(log []Request) int {
	byEnd := slices.SortedFunc(slices.Values(log), func(a, b Request) int { return a.End.Compare(b.End) })
	rounds := 0
	var last time.Time
	for _, r := range byEnd {
		if rounds == 0 || !r.Start.Before(last) {
			rounds++
			last = r.End
		}
	}
	return rounds
}

// Bytes is the sum of the bodies.
func Bytes(log []Request) int64 {
	var n int64
	for _, r := range log {
		n += r.Bytes
	}
	return n
}
