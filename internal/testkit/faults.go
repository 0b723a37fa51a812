//go:build linux

package testkit

import (
	"bytes"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Answer replies with a status and no content.
func Answer(status int, header http.Header) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			maps.Copy(w.Header(), header)
			w.WriteHeader(status)
		})
	}
}

// Serve replies with other content, whole or in ranges as asked, as if it were
// the content.
func Serve(content []byte, header http.Header) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			maps.Copy(w.Header(), header)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		})
	}
}

// IgnoreRange sends the whole blob whatever part was asked for.
func IgnoreRange(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		next.ServeHTTP(w, r)
	})
}

// Cut ends every body after n bytes, though the header promised more.
func Cut(n int64) func(http.Handler) http.Handler {
	return after(n, func(*limited) { panic(http.ErrAbortHandler) })
}

// Reset breaks the connection after n bytes of the body, so that the client
// sees a reset rather than an end.
func Reset(n int64) func(http.Handler) http.Handler {
	return after(n, func(l *limited) {
		if conn, _, err := http.NewResponseController(l.ResponseWriter).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
		panic(http.ErrAbortHandler)
	})
}

func after(n int64, strike func(*limited)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&limited{ResponseWriter: w, request: r, left: n, strike: strike}, r)
		})
	}
}

// limited passes left bytes, then strikes once.
type limited struct {
	http.ResponseWriter
	request *http.Request
	left    int64
	struck  bool
	strike  func(*limited)
}

func (l *limited) Write(b []byte) (int, error) {
	if l.struck || int64(len(b)) <= l.left {
		l.left -= int64(len(b))
		return l.ResponseWriter.Write(b)
	}
	n, err := l.ResponseWriter.Write(b[:l.left])
	if err != nil {
		return n, err
	}
	l.Flush()
	l.struck = true
	l.strike(l)
	m, err := l.ResponseWriter.Write(b[n:])
	return n + m, err
}

// Flush sends what was written.
func (l *limited) Flush() { _ = http.NewResponseController(l.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (l *limited) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// Stalls makes the proxy send only n bytes of each body below path until
// release is closed, and returns a function that reports whether a request has
// come that far.
func (p *Proxy) Stalls(path string, n int64, release <-chan struct{}) func() bool {
	var reached atomic.Bool
	strike := func(l *limited) {
		reached.Store(true)
		select {
		case <-release:
		case <-l.request.Context().Done():
		}
	}
	p.Inject(Fault{Path: path, Do: after(n, strike)})
	return reached.Load
}
