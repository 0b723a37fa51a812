//go:build linux

package registries

import (
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// TestMirrorDies reads by a mirror that goes away in the middle, and comes back.
func TestMirrorDies(t *testing.T) {
	t.Parallel()
	const secret = "a-header-for-the-mirror"
	reg := testkit.NewRegistry(t)
	publishPieces(t, reg)
	mirror := testkit.NewProxy(t, reg.Host())
	g := testkit.NewGuarded(t, reg.Host(), testkit.Guard{TokenLife: time.Hour, Users: map[string]string{user: password}})
	dir := hosts(t, strings.Replace(g.Host(), ":", "_", 1)+"_", `
[host."http://%s"]
  capabilities = ["pull", "resolve"]
  [host."http://%s".header]
    X-Mirror = "%s"
`, mirror.Host(), mirror.Host(), secret)
	p := testkit.NewPeel(t)
	login(t, p, g.Host(), user, password)
	// Else the origin is asked for profiles, since the mirror has no referrers.
	root := p.Mount(g.Ref("pie/ces", "v1"), "--hosts-dir", dir, "--prefetch", "none")
	if len(g.Wire()) > 0 {
		t.Errorf("the origin was asked %d times while its mirror lived", len(g.Wire()))
	}
	readSlowly(t, root, func(i int) {
		switch i {
		case pieces / 3:
			mirror.Stop()
		case 2 * pieces / 3:
			mirror.Start()
		}
	})
	p.Umount(root)
	if !testkit.Carried(mirror.Wire(), secret) || !testkit.Carried(mirror.Wire(), "ns=") {
		t.Error("the mirror was not told whose image is meant, or was not sent its header")
	}
	testkit.Harmless(t, "the mirror", mirror.Wire(), password)
	if testkit.Carried(g.Wire(), secret) || testkit.Carried(g.Tokens.Wire(), secret) {
		t.Error("the origin was sent the mirror's header")
	}
	if len(g.Wire()) == 0 {
		t.Error("the origin was never asked")
	}
}

// TestMirrorWithoutResolve: a host that may not say what a tag means is not
// asked for that, but for the rest.
func TestMirrorWithoutResolve(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "a/b", "v1", testkit.Encode(t, testkit.Gzip, testkit.File("file", []byte("content"))))
	mirror := testkit.NewProxy(t, reg.Host())
	dir := hosts(t, "registry.example", `server = "http://%s"
[host."http://%s/v2/prefix"]
  capabilities = ["pull"]
  override_path = true
[host."http://%s"]
  capabilities = ["pull"]
`, reg.Host(), mirror.Host(), mirror.Host())
	p := testkit.NewPeel(t)
	if out := p.Must("cat", "--hosts-dir", dir, "registry.example/a/b:v1:/file").Stdout; out != "content" {
		t.Errorf("%q", out)
	}
	prefixed := false
	for _, w := range mirror.Wire() {
		if strings.Contains(w.URI, "/manifests/v1") {
			t.Errorf("the mirror was asked what a tag means: %s", w.URI)
		}
		prefixed = prefixed || strings.HasPrefix(w.URI, "/v2/prefix/a/b/")
	}
	if !prefixed {
		t.Error("override_path was not obeyed")
	}
}

// TestProxyOfHost: hosts.toml names an HTTP proxy for one host.
func TestProxyOfHost(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "a/b", "v1", testkit.Encode(t, testkit.Gzip, testkit.File("file", []byte("content"))))
	proxy := testkit.NewProxy(t, reg.Host()) // whatever the request's host is
	dir := hosts(t, "registry.example", `[host."http://behind.invalid"]
  proxy = "http://%s"
`, proxy.Host())
	p := testkit.NewPeel(t)
	if out := p.Must("cat", "--hosts-dir", dir, "registry.example/a/b:v1:/file").Stdout; out != "content" {
		t.Errorf("%q", out)
	}
	if w := proxy.Wire(); len(w) == 0 || w[0].Host != "behind.invalid" {
		t.Errorf("the proxy saw %v", w)
	}
}
