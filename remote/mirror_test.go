package remote

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
)

// hostsDir makes a folder with the hosts.toml of one registry, if any.
func hostsDir(t *testing.T, registry, toml string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, registry)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if toml == "" {
		return root
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

// challenge wraps a registry in basic authentication for user:pass.
func challenge(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if user, pass, ok := r.BasicAuth(); !ok || user != "user" || pass != "pass" {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h(w, r)
	}
}

func TestMirror(t *testing.T) {
	t.Parallel()
	content := noise(100_000)
	serve := func(w http.ResponseWriter, r *http.Request) {
		if isBlob(r) {
			serveBlob(w, r, content)
			return
		}
		w.Write([]byte(imageManifest)) //nolint:errcheck // the client tells
	}
	mirrorPath := "/proxy/v2/a/b/"
	for _, tt := range []struct {
		name           string
		mirror         http.HandlerFunc
		capabilities   string
		mirrorRequests int // for one manifest by tag and two ranges
		originRequests int
	}{
		{"serves", serve, `["pull", "resolve"]`, 3, 0},
		{"may not resolve tags", serve, `["pull"]`, 2, 2},
		{"lacks the image", http.NotFound, `["pull", "resolve"]`, 3, 4},
		{"wants a login", challenge(serve), `["pull", "resolve"]`, 3, 4},
		{"is down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, `["pull", "resolve"]`, 1, 4},
		{"breaks connections", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, `["pull", "resolve"]`, 1, 4},
		{"dies in bodies", func(w http.ResponseWriter, r *http.Request) { serve(&cut{w, 20}, r) }, `["pull", "resolve"]`, 1, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mirror := newHost(t, tt.mirror)
			origin := newHost(t, challenge(serve))
			toml := fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = %s\n[host.%q.header]\nX-Mirror = \"secret\"\n",
				origin.URL, mirror.URL+"/proxy", tt.capabilities, mirror.URL+"/proxy")
			c := newClient(t, Options{
				HostsDir: hostsDir(t, origin.addr(), toml),
				Keychain: keys{origin.addr(): {Username: "user", Password: "pass"}},
			})
			ref, d := blobRef(t, origin.addr(), content)
			if _, _, err := c.Manifest(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			b := c.Open(ref, d)
			wantRange(t, b, content, 5, 50_000)
			wantRange(t, b, content, 50_005, 100)
			for _, r := range mirror.requests() {
				if ns := r.URL.Query().Get("ns"); ns != origin.addr() || !strings.HasPrefix(r.URL.Path, mirrorPath) || r.Header.Get("X-Mirror") != "secret" {
					t.Errorf("mirror asked %s, header %q", r.URL, r.Header.Get("X-Mirror"))
				}
				if a := r.Header.Get("Authorization"); a != "" {
					t.Errorf("mirror got the origin's credentials: %s", a)
				}
			}
			for _, r := range origin.requests() {
				if r.URL.RawQuery != "" || r.Header.Get("X-Mirror") != "" {
					t.Errorf("origin asked %s, header %q", r.URL, r.Header.Get("X-Mirror"))
				}
			}
			got := [2]int{len(mirror.requests()), len(origin.requests())}
			if diff := cmp.Diff([2]int{tt.mirrorRequests, tt.originRequests}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAllHostsDown(t *testing.T) {
	t.Parallel()
	down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	mirror, origin := newHost(t, down), newHost(t, down)
	c := newClient(t, Options{HostsDir: hostsDir(t, origin.addr(), fmt.Sprintf("server = %q\n[host.%q]\n", origin.URL, mirror.URL))})
	_, _, err := c.Manifest(t.Context(), named(t, origin.addr()+"/a/b:v1"))
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), mirror.addr()+" answers 503") {
		t.Errorf("error %v", err)
	}
	if m, o := len(mirror.requests()), len(origin.requests()); m != quick().Attempts || o != quick().Attempts {
		t.Errorf("%d and %d requests", m, o)
	}
}

func TestHostsReadAgainAfterFailure(t *testing.T) {
	t.Parallel()
	content := noise(100)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	root := hostsDir(t, "r.example", `server = "http://127.0.0.1:1"`)
	c := newClient(t, Options{HostsDir: root})
	ref, d := blobRef(t, "r.example", content)
	b := c.Open(ref, d)
	if _, err := readRange(t.Context(), b, 1, 5); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("error %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "r.example", "hosts.toml"), []byte(`server = "`+s.URL+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRange(t, b, content, 1, 5)
}

// A running client follows its configuration, unless that became unreadable.
func TestHostsReadAgainAfterChange(t *testing.T) {
	t.Parallel()
	first, second := newHost(t, saying(200, nil, imageManifest)), newHost(t, saying(200, nil, imageManifest))
	root := hostsDir(t, "r.example", `server = "`+first.URL+`"`)
	file := filepath.Join(root, "r.example", "hosts.toml")
	c := newClient(t, Options{HostsDir: root})
	for i, tt := range []struct {
		content string
		want    [2]int
	}{
		{`server = "` + first.URL + `"`, [2]int{1, 0}},
		{`server = "` + second.URL + `" # now`, [2]int{1, 1}},
		{`server = `, [2]int{1, 2}},
		{`server = "` + first.URL + `" # again`, [2]int{2, 2}},
	} {
		if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		if r := c.registries["r.example"]; r != nil {
			r.checked = time.Time{}
		}
		c.mu.Unlock()
		if _, _, err := c.Manifest(t.Context(), named(t, "r.example/a/b:v1")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, [2]int{len(first.requests()), len(second.requests())}); diff != "" {
			t.Errorf("%d: %s", i, diff)
		}
	}
}

func TestTLSWithOwnCA(t *testing.T) {
	t.Parallel()
	content := noise(10_000)
	for _, tt := range []struct {
		name, file string
		toml       func(addr string) string
	}{
		{"hosts.toml", "ca.pem", func(addr string) string { return fmt.Sprintf("server = \"https://%s\"\nca = \"ca.pem\"\n", addr) }},
		{"hosts.toml, no server", "ca.pem", func(string) string { return "ca = \"ca.pem\"\n" }},
		{"docker's files", "ca.crt", func(string) string { return "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newUnstartedHost(t, func(w http.ResponseWriter, r *http.Request) {
				if !isBlob(r) {
					w.Write([]byte(imageManifest)) //nolint:errcheck // the client tells
					return
				}
				serveBlob(w, r, content)
			})
			s.EnableHTTP2 = true
			s.StartTLS()
			root := hostsDir(t, s.addr(), tt.toml(s.addr()))
			ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
			if err := os.WriteFile(filepath.Join(root, s.addr(), tt.file), ca, 0o600); err != nil {
				t.Fatal(err)
			}
			c := newClient(t, Options{HostsDir: root})
			ref, d := blobRef(t, s.addr(), content)
			if _, _, err := c.Manifest(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			wantRange(t, c.Open(ref, d), content, 10, 5000)
			for _, r := range s.requests() {
				if r.ProtoMajor != 2 {
					t.Errorf("asked by %s", r.Proto)
				}
			}
		})
	}
}

func TestCredentialNames(t *testing.T) {
	t.Parallel()
	login := authn.AuthConfig{Username: "u", Password: "p"}
	for _, tt := range []struct {
		name, domain, host string
		keys               keys
		found              bool
	}{
		{"docker's own name for its hub", "docker.io", "registry-1.docker.io", keys{"index.docker.io": login}, true},
		{"podman's name for it", "docker.io", "registry-1.docker.io", keys{"docker.io": login}, true},
		{"another host's", "docker.io", "registry-1.docker.io", keys{"r.example": login}, false},
		{"mirror of the hub", "docker.io", "mirror.example", keys{"index.docker.io": login, "docker.io": login}, false},
		{"mirror's own", "docker.io", "mirror.example", keys{"mirror.example": login}, true},
		{"port", "r.example:5000", "r.example:5000", keys{"r.example:5000": login}, true},
		{"other port", "r.example:5000", "r.example:5000", keys{"r.example": login}, false},
	} {
		root := hostsDir(t, tt.domain, `server = "https://`+tt.host+`"`)
		c := newClient(t, Options{Keychain: tt.keys, HostsDir: root})
		r, err := c.registry(t.Context(), tt.domain)
		if err != nil {
			t.Fatal(err)
		}
		creds, err := c.credentials(t.Context(), r.endpoints[0].authority(pulling("a/b")))
		if err != nil || (creds.Username == "u") != tt.found {
			t.Errorf("%s: %+v, %v", tt.name, creds, err)
		}
	}
}
