package remote

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// A redirect costs no connection.
func TestRedirectKeepsConnection(t *testing.T) {
	t.Parallel()
	content := noise(5000)
	store := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	var conns atomic.Int64
	registry := newUnstartedHost(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, store.URL+"/x", http.StatusTemporaryRedirect)
	})
	registry.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	registry.Start()
	c := newClient(t, Options{})
	for range 5 {
		ref, d := blobRef(t, registry.addr(), content)
		wantRange(t, c.Open(ref, d), content, 5, 100)
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 5 redirects", n)
	}
}
