//go:build linux

package testkit

import (
	"net/http/httptest"
	"testing"

	"github.com/peelfs/peel/internal/link"
)

// A Line is a way to a registry over a simulated network line.
type Line struct {
	host string
	line *link.Link
}

// Behind serves the registry at the far end of a line as well. Unlike a Proxy
// it costs no second copy of the bytes, which matters where the line is fast,
// and it counts the handshake of a connection.
func (r *Registry) Behind(t testing.TB, l Link) *Line {
	t.Helper()
	line := &link.Link{RoundTrip: l.Delay, Bandwidth: 8 * l.BytesPerSecond}
	s := httptest.NewUnstartedServer(line.Handler(r.handler))
	s.Config.ConnContext = link.ConnContext
	s.Start()
	t.Cleanup(s.Close)
	return &Line{host: s.Listener.Addr().String(), line: line}
}

// Host is the address and port of the registry over the line.
func (l *Line) Host() string { return l.host }

// Count is how many requests, and bytes of their answers, went over the line
// so far.
func (l *Line) Count() (requests, bytes int64) {
	s := l.line.Stats()
	return s.Requests, s.Bytes
}
