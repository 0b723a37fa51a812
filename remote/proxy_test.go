package remote

import (
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// forward is an HTTP proxy, for tunnels and for plain requests. Every name
// leads to backend.
func forward(backend func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			r.RequestURI, r.URL.Host = "", backend()
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
			io.Copy(w, resp.Body) //nolint:errcheck // the client tells
			return
		}
		up, err := net.Dial("tcp", backend())
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		// Before the answer, or the first bytes behind it may be in a buffer of
		// the server's.
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n") //nolint:errcheck // the client tells
		splice(up, down)
	}
}

func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			io.Copy(pair[0], pair[1]) //nolint:errcheck // the client tells
			pair[0].Close()           //nolint:errcheck // of no more use
		})
	}
	wg.Wait()
}

// socks is a SOCKS 5 proxy (RFC 1928) without a login. It returns its address
// and, when called, the names that it was asked for.
func socks(t *testing.T, backend func() string) (string, func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				name, err := socksRequest(c)
				if err != nil {
					return
				}
				mu.Lock()
				asked = append(asked, name)
				mu.Unlock()
				up, err := net.Dial("tcp", backend())
				if err != nil {
					return
				}
				splice(up, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() }) //nolint:errcheck // it listens no more
	return l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
}

func socksRequest(c net.Conn) (string, error) {
	b := make([]byte, 262)
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, b[:b[1]]); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, b[:5]); err != nil {
		return "", err
	}
	if b[3] != 3 {
		return "", fmt.Errorf("address type %d", b[3])
	}
	name := make([]byte, int(b[4])+2)
	if _, err := io.ReadFull(c, name); err != nil {
		return "", err
	}
	_, err := c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	port := binary.BigEndian.Uint16(name[len(name)-2:])
	return net.JoinHostPort(string(name[:len(name)-2]), strconv.Itoa(int(port))), err
}

func TestProxyOfHostsFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, scheme string
		server       string // of the registry r.example
		secret       bool   // the proxy wants a login
	}{
		{"http, to HTTP", "http", "http", false},
		{"http, to HTTPS", "http", "https", false},
		{"http with a login", "http", "https", true},
		{"https", "https", "https", false},
		{"socks5", "socks5", "http", false},
		{"socks5h", "socks5h", "https", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			origin := newUnstartedHost(t, saying(200, nil, imageManifest))
			if tt.server == "https" {
				origin.StartTLS()
			} else {
				origin.Start()
			}
			dir := hostsDir(t, "r.example", "")
			proxy, asked := newProxy(t, tt.scheme, origin, tt.secret)
			toml := fmt.Sprintf("server = \"%s://r.example\"\nproxy = %q\n", tt.server, proxy)
			if tt.server == "https" { // with plain HTTP, containerd would try HTTPS first
				toml += "skip_verify = true\n"
			}
			if err := os.WriteFile(filepath.Join(dir, "r.example", "hosts.toml"), []byte(toml), 0o600); err != nil {
				t.Fatal(err)
			}
			c := newClient(t, Options{HostsDir: dir, Keychain: keys{"r.example": {Username: "u", Password: "p"}}})
			if _, _, err := c.Manifest(t.Context(), named(t, "r.example/a/b:v1")); err != nil {
				t.Fatal(err)
			}
			if n := len(origin.requests()); n != 1 || asked() != 1 {
				t.Errorf("%d requests at the registry, %d at the proxy", n, asked())
			}
			for _, r := range origin.requests() {
				if r.Header.Get("Proxy-Authorization") != "" {
					t.Error("the registry got the proxy's login")
				}
			}
		})
	}
}

// newProxy starts one, and returns its address for hosts.toml and how often it
// was asked.
func newProxy(t *testing.T, scheme string, origin *host, secret bool) (string, func() int) {
	t.Helper()
	if strings.HasPrefix(scheme, "socks") {
		addr, asked := socks(t, origin.addr)
		return scheme + "://" + addr, func() int { return len(asked()) }
	}
	p := newUnstartedHost(t, func(w http.ResponseWriter, r *http.Request) {
		if want := "Basic bWU6c2VjcmV0"; secret && r.Header.Get("Proxy-Authorization") != want {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		forward(origin.addr)(w, r)
	})
	if scheme == "https" {
		p.StartTLS()
	} else {
		p.Start()
	}
	user := ""
	if secret {
		user = "me:secret@"
	}
	return scheme + "://" + user + p.addr(), func() int { return len(p.requests()) }
}

// Each host has a proxy of its own, or none.
func TestProxyOfOneMirror(t *testing.T) {
	t.Parallel()
	origin := newHost(t, saying(200, nil, imageManifest))
	mirror := newHost(t, saying(404, nil, ""))
	proxy := newHost(t, forward(mirror.addr))
	toml := fmt.Sprintf("server = %q\n[host.\"http://mirror.example/sub\"]\nproxy = %q\n", origin.URL, proxy.URL)
	c := newClient(t, Options{HostsDir: hostsDir(t, origin.addr(), toml)})
	if _, _, err := c.Manifest(t.Context(), named(t, origin.addr()+"/a/b:v1")); err != nil {
		t.Fatal(err)
	}
	got := [3]int{len(proxy.requests()), len(mirror.requests()), len(origin.requests())}
	if diff := cmp.Diff([3]int{1, 1, 1}, got); diff != "" {
		t.Error(diff)
	}
	if r := mirror.requests()[0]; r.URL.Path != "/sub/v2/a/b/manifests/v1" || r.URL.Query().Get("ns") != origin.addr() {
		t.Errorf("mirror asked for %s", r.URL)
	}
}

// A hosts.toml's proxy beats the environment's, which is not asked.
func TestProxyBeatsEnvironment(t *testing.T) {
	origin := newHost(t, saying(200, nil, imageManifest))
	other := newHost(t, saying(502, nil, ""))
	proxy := newHost(t, forward(origin.addr))
	t.Setenv("HTTP_PROXY", other.URL)
	toml := fmt.Sprintf("server = \"http://r.example\"\nproxy = %q\n", proxy.URL)
	c := newClient(t, Options{HostsDir: hostsDir(t, "r.example", toml)})
	if _, _, err := c.Manifest(t.Context(), named(t, "r.example/a/b:v1")); err != nil {
		t.Fatal(err)
	}
	if len(other.requests()) != 0 || len(proxy.requests()) != 1 {
		t.Errorf("%d requests by the environment's proxy, %d by the file's", len(other.requests()), len(proxy.requests()))
	}
}

// The keys of hosts.toml, each seen from the server.
func TestHostsFileKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		folder  func(port string) string // below the root; HOST is host:port
		toml    string                   // URL and HOST are the registry's, MIRROR another's URL
		path    string                   // asked for at the registry
		mirrors int                      // requests there
		header  string                   // X-Test that the registry gets
	}{
		{name: "no file at all", folder: func(string) string { return "other" }, path: "/v2/a/b/manifests/v1"},
		{name: "host:port", folder: func(p string) string { return "127.0.0.1:" + p }, toml: "server = \"URL\"\n[header]\nX-Test = \"1\"", path: "/v2/a/b/manifests/v1", header: "1"},
		{name: "host_port_", folder: func(p string) string { return "127.0.0.1_" + p + "_" }, toml: "server = \"URL\"\n[header]\nX-Test = [\"1\", \"2\"]", path: "/v2/a/b/manifests/v1", header: "1 2"},
		{name: "_default", folder: func(string) string { return "_default" }, toml: "[host.\"MIRROR\"]", path: "/v2/a/b/manifests/v1", mirrors: 1},
		{name: "override_path", folder: func(string) string { return "_default" }, toml: "server = \"URL/own/root\"\noverride_path = true", path: "/own/root/a/b/manifests/v1"},
		{name: "path", folder: func(string) string { return "_default" }, toml: "server = \"URL/own\"", path: "/own/v2/a/b/manifests/v1"},
		{name: "mirror may not resolve", folder: func(string) string { return "_default" }, toml: "[host.\"MIRROR\"]\ncapabilities = [\"pull\"]", path: "/v2/a/b/manifests/v1"},
		{name: "mirror without path", folder: func(string) string { return "_default" }, toml: "[host.\"MIRROR\"]\noverride_path = true\ndial_timeout = \"5s\"", path: "/v2/a/b/manifests/v1", mirrors: 1},
		{name: "two mirrors", folder: func(string) string { return "_default" }, toml: "[host.\"MIRROR/z\"]\n[host.\"MIRROR/a\"]", path: "/v2/a/b/manifests/v1", mirrors: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			origin := newHost(t, saying(200, nil, imageManifest))
			mirror := newHost(t, saying(404, nil, ""))
			_, port, _ := net.SplitHostPort(origin.addr())
			toml := strings.NewReplacer("URL", origin.URL, "HOST", origin.addr(), "MIRROR", mirror.URL).Replace(tt.toml)
			c := newClient(t, Options{HostsDir: hostsDir(t, tt.folder(port), toml)})
			if _, _, err := c.Manifest(t.Context(), named(t, origin.addr()+"/a/b:v1")); err != nil {
				t.Fatal(err)
			}
			asked := origin.requests()
			if len(asked) != 1 || asked[0].URL.Path != tt.path || strings.Join(asked[0].Header.Values("X-Test"), " ") != tt.header {
				t.Errorf("asked for %s, header %q", asked[0].URL, asked[0].Header.Values("X-Test"))
			}
			if n := len(mirror.requests()); n != tt.mirrors {
				t.Errorf("%d requests to mirrors", n)
			}
			if tt.mirrors == 2 && !strings.HasPrefix(mirror.requests()[0].URL.Path, "/z/") {
				t.Errorf("mirrors are not asked in the order of the file: %s", mirror.requests()[0].URL)
			}
		})
	}
}

// caFile is the certificate of a server in a file.
func caFile(t *testing.T, s *host) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
