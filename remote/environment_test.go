package remote

import (
	"net/http"
	"os"
	"os/exec"
	"testing"
)

// childEnv is set where the test below runs itself: net/http looks at the
// environment once in the life of a process.
const childEnv = "PEEL_TEST_CHILD"

// Proxies of the environment are used where hosts.toml names none, for foreign
// layers, too.
func TestProxyOfEnvironment(t *testing.T) {
	content := noise(5000)
	ref, d := blobRef(t, wired, content)
	if os.Getenv(childEnv) != "" {
		d.URLs = []string{"http://foreign.example/layer"}
		c := newClient(t, Options{PlainHTTP: true, ForeignHosts: []string{"*.example"}})
		if _, _, err := c.Manifest(t.Context(), ref); err != nil {
			t.Error(err)
		}
		wantRange(t, c.Open(ref, d), content, 0, d.Size)
		return
	}
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host == wired {
			w.Write([]byte(imageManifest)) //nolint:errcheck // the client tells
			return
		}
		serveBlob(w, r, content)
	})
	plain := newHost(t, forward(s.addr))
	addr, asked := socks(t, s.addr)
	for _, proxy := range []string{plain.URL, "socks5://" + addr, "socks5h://" + addr} {
		before := len(s.requests())
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfEnvironment$", "-test.count=1")
		child.Env = append(os.Environ(), childEnv+"=1", "HTTP_PROXY="+proxy, "http_proxy="+proxy, "NO_PROXY=", "no_proxy=")
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", proxy, err, out)
		}
		if n := len(s.requests()) - before; n != 2 {
			t.Errorf("%s: %d requests", proxy, n)
		}
	}
	if len(plain.requests()) != 2 || len(asked()) == 0 {
		t.Errorf("%d requests to the proxy, names %v", len(plain.requests()), asked())
	}
}
