//go:build linux

package testkit

import (
	"net/http/httptest"
	"testing"

	"github.com/peelfs/peel/internal/link"
)

// Behind serves the registry at the far end of a network line as well, and
// returns the address and port there. Unlike a Proxy it costs no second copy
// of the bytes, which matters where the line is fast.
func (r *Registry) Behind(t testing.TB, line *link.Link) string {
	t.Helper()
	s := httptest.NewUnstartedServer(line.Handler(r.handler))
	s.Config.ConnContext = link.ConnContext
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
