package link

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// late is how late a writer may wake and still have had the line all the time.
// Timers of under a millisecond are late by as much, which a fast line that
// counted it as idle would lose with every piece.
const late = 5 * time.Millisecond

// piece is how much of a response goes out before another response may have
// the line, bytes.
const piece = 16 << 10

// Link is one line. Its fields must not change once it is in use.
type Link struct {
	RoundTrip time.Duration // 0: none
	Bandwidth int64         // of all responses together, bits a second; 0: unlimited

	requests atomic.Int64
	bytes    atomic.Int64

	mu   sync.Mutex // guards free
	free time.Time  // when the line has sent everything accepted so far
}

// Stats is what went over a Link so far.
type Stats struct {
	Requests int64
	Bytes    int64 // of response bodies
}

// Stats returns the counters.
func (l *Link) Stats() Stats {
	return Stats{Requests: l.requests.Load(), Bytes: l.bytes.Load()}
}

// Since returns what went over the line after earlier was taken.
func (s Stats) Since(earlier Stats) Stats {
	return Stats{Requests: s.Requests - earlier.Requests, Bytes: s.Bytes - earlier.Bytes}
}

type freshKey struct{}

// ConnContext is to be an http.Server's: it lets the handler tell the first
// request on a connection, which pays for the handshake.
func ConnContext(ctx context.Context, _ net.Conn) context.Context {
	fresh := new(atomic.Bool)
	fresh.Store(true)
	return context.WithValue(ctx, freshKey{}, fresh)
}

// Handler returns h at the far end of the line.
func (l *Link) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.requests.Add(1)
		wait := l.RoundTrip
		if fresh, ok := r.Context().Value(freshKey{}).(*atomic.Bool); ok && fresh.Swap(false) {
			wait += l.RoundTrip
		}
		if sleep(r.Context(), wait) != nil {
			return
		}
		h.ServeHTTP(&writer{ResponseWriter: w, link: l, ctx: r.Context()}, r)
	})
}

// writer sends a response at the pace of the line. Not being an
// io.ReaderFrom, it sees every byte.
type writer struct {
	http.ResponseWriter
	link *Link
	ctx  context.Context //nolint:containedctx // of the one request that the writer answers
	last time.Time       // when the line had sent the piece before
}

func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), piece)]
		w.last = w.link.reserve(len(part), w.last)
		if err := sleep(w.ctx, time.Until(w.last)); err != nil {
			return n, err
		}
		var m int
		m, err = w.ResponseWriter.Write(part)
		w.link.bytes.Add(int64(m))
		n, p = n+m, p[len(part):]
	}
	return n, err
}

// reserve takes the line for n bytes and returns when they have arrived. The
// writer has been ready since last, if that is not long ago.
func (l *Link) reserve(n int, last time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	ready := time.Now()
	if ready.Sub(last) < late {
		ready = last
	}
	if l.free.Before(ready) {
		l.free = ready
	}
	if l.Bandwidth > 0 {
		l.free = l.free.Add(time.Duration(int64(n) * 8 * int64(time.Second) / l.Bandwidth))
	}
	return l.free
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
