//go:build linux

package registries

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// TestErrors: what goes wrong most often is told so that whoever reads it knows
// what happened, where, and what to do.
func TestErrors(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	layer := testkit.Encode(t, testkit.Gzip, testkit.File("file", []byte("content")))
	reg.Publish(t, "a/b", "v1", layer)
	g := guard(t, reg.Host())
	authority, other := testkit.NewAuthority(t), testkit.NewAuthority(t)
	secure := authority.Front(t, reg.Host(), nil, "127.0.0.1")
	misnamed := authority.Front(t, reg.Host(), nil, "registry.example")
	clients := authority.Front(t, reg.Host(), other, "127.0.0.1")
	https := func(host string) []string {
		return []string{"--hosts-dir", hosts(t, "registry.example", "server = \"https://%s\"\n", host)}
	}
	faulty := func(path string, do func(http.Handler) http.Handler) string {
		p := testkit.NewProxy(t, reg.Host())
		p.Inject(testkit.Fault{Path: path, Do: do})
		return p.Ref("a/b", "v1")
	}
	silent := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	}
	const far = "registry.example/a/b:v1"
	for _, tc := range []struct {
		name, ref string
		flags     []string
		code      int
		words     []string // what happened, where, what to do
	}{
		{"login needed", g.Ref("a/b", "v1"), nil, testkit.Unauthorized, []string{g.Host(), "login " + g.Host()}},
		{"unknown repository", reg.Ref("no/such", "v1"), nil, testkit.NotFound, []string{"not found", "no/such:v1", "check the name"}},
		{"unknown tag", reg.Ref("a/b", "v2"), nil, testkit.NotFound, []string{"not found", "a/b:v2", "peel tags"}},
		{"unknown digest", reg.Host() + "/a/b@sha256:" + strings.Repeat("1", 64), nil, testkit.NotFound, []string{"not found", "sha256:1111"}},
		{"access denied", faulty("/manifests/", testkit.Answer(http.StatusForbidden, nil)), nil, testkit.Unauthorized, []string{"denies access", "peel login"}},
		{"unknown authority", far, https(secure.Host()), testkit.Network, []string{secure.Host(), "unknown authority", "--ca"}},
		{"name of the certificate", far, append(https(misnamed.Host()), "--ca", authority.File), testkit.Network, []string{misnamed.Host(), "registry.example", "certificate"}},
		{"client certificate", far, append(https(clients.Host()), "--ca", authority.File), testkit.Network, []string{clients.Host(), "certificate", "--client-cert"}},
		{"HTTP answer to HTTPS", far, https(reg.Host()), testkit.Network, []string{reg.Host(), "--plain-http"}},
		{"HTTP to HTTPS", secure.Host() + "/a/b:v1", nil, testkit.Network, []string{secure.Host(), "HTTPS"}},
		{"unknown name", "registry.invalid/a/b:v1", nil, testkit.Network, []string{"registry.invalid", "DNS"}},
		{"nobody there", "127.0.0.1:1/a/b:v1", nil, testkit.Network, []string{"127.0.0.1:1", "refused", "peel doctor"}},
		{"no answer", faulty("", silent), []string{"--timeout", "2s"}, testkit.Network, []string{"--timeout"}},
		{"rate limit", faulty("", testkit.Answer(http.StatusTooManyRequests, http.Header{"Retry-After": {"3600"}})), nil, testkit.Network, []string{"limit", "1h", "login"}},
		{"not a registry", faulty("", testkit.Serve([]byte("<html>hello</html>"), http.Header{"Content-Type": {"text/html"}})), nil, testkit.Failed, []string{"a/b:v1", "web page"}},
		{"reference", "a/B:v1", nil, testkit.Usage, []string{"a/B:v1"}},
		{"a file that is not there", "docker-archive:/no/such.tar", nil, testkit.NotFound, []string{"/no/such.tar"}},
		{"hosts folder", far, []string{"--hosts-dir", "/no/such"}, testkit.Usage, []string{"/no/such", "--hosts-dir"}},
		{"authorities", far, []string{"--ca", "/no/such.pem"}, testkit.Usage, []string{"/no/such.pem"}},
		{"password without input", reg.Ref("a/b", "v1"), []string{"--username", "somebody"}, testkit.Usage, []string{"--password-stdin"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := testkit.NewPeel(t)
			start := time.Now()
			r := p.Run(append([]string{"mount", tc.ref, p.Dir()}, tc.flags...)...)
			if r.Code != tc.code {
				t.Errorf("exit code %d, want %d", r.Code, tc.code)
			}
			for _, w := range tc.words {
				if !strings.Contains(r.Stderr, w) {
					t.Errorf("does not say %q", w)
				}
			}
			if lines := strings.Count(r.Stderr, "\n"); lines > 4 || !strings.HasPrefix(r.Stderr, "peel: ") {
				t.Errorf("%d lines", lines)
			}
			if t.Failed() {
				t.Logf("after %v:\n%s", time.Since(start).Round(time.Second), r.Stderr)
			}
			p.CheckLeftovers()
		})
	}
}

// TestSecure mounts over TLS with an authority and a certificate of the command
// line, which the process that serves the mount must have as well.
func TestSecure(t *testing.T) {
	t.Parallel()
	dir, _ := layout(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, dir, "oci", "a/b")
	authority, clients := testkit.NewAuthority(t), testkit.NewAuthority(t)
	front := authority.Front(t, reg.Host(), clients, "127.0.0.1")
	cert, key := clients.Client(t, "somebody")
	at := hosts(t, "registry.example", "server = \"https://%s\"\n", front.Host())
	for _, tc := range []struct {
		name  string
		flags []string
	}{
		{"authority", []string{"--ca", authority.File}},
		{"several authorities", []string{"--ca", clients.File, "--ca", authority.File}},
		{"not looked at", []string{"--insecure-skip-verify"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := testkit.NewPeel(t)
			root := p.Mount("registry.example/a/b:oci", append(tc.flags, "--hosts-dir", at, "--client-cert", cert, "--client-key", key)...)
			readsAll(t, root)
			p.Umount(root)
			if w := front.Wire(); len(w) == 0 || w[len(w)-1].Proto != "HTTP/2.0" {
				t.Errorf("%d requests, not by HTTP/2", len(w))
			}
		})
	}
}
