//go:build linux

package registries

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// The password is looked for on the wire, so it must not stand elsewhere.
const (
	user     = "somebody"
	password = "a-password-of-tests"
)

// A system is a registry as clients see it.
type system struct {
	name string
	host string // for clients
	push string // for the test
	// prepare gives a client what it needs for this registry.
	prepare func(t *testing.T, p *testkit.Peel)
	// secrets checks that nobody else was told the secrets.
	secrets func(t *testing.T)
	old     bool // knows no referrers and may speak schema 1
}

// systems starts every kind of registry, each with nothing in it.
func systems(t *testing.T) []system {
	t.Helper()
	nothing := func(*testing.T, *testkit.Peel) {}
	nobody := func(*testing.T) {}
	plain, behind, guarded := testkit.NewRegistry(t), testkit.NewRegistry(t), testkit.NewRegistry(t)
	old := testkit.NewOldRegistry(t)
	g := guard(t, guarded.Host())
	return []system{
		{"distribution", plain.Host(), plain.Host(), nothing, nobody, false},
		{"docker-registry", old.Host(), old.Host(), nothing, nobody, true},
		{"nginx", testkit.NewNginx(t, behind.Host()).Host(), behind.Host(), nothing, nobody, false},
		{
			"tokens and redirects", g.Host(), guarded.Host(),
			func(t *testing.T, p *testkit.Peel) { login(t, p, g.Host(), user, password) },
			func(t *testing.T) { kept(t, g) },
			false,
		},
	}
}

func guard(t *testing.T, host string) *testkit.Guarded {
	t.Helper()
	return testkit.NewGuarded(t, host, testkit.Guard{
		TokenLife: 2 * time.Second, Users: map[string]string{user: password}, URLLife: 3 * time.Second,
	})
}

// kept checks that the servers to which requests were redirected have seen no
// secret, and that the registry has seen tokens, but no password.
func kept(t *testing.T, g *testkit.Guarded) {
	t.Helper()
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	testkit.Harmless(t, "the server that redirects", g.Hop.Wire(), password, basic, "tok-")
	testkit.Harmless(t, "the server of blobs", g.Blobs.Wire(), password, basic, "tok-")
	for _, word := range []string{password, basic} {
		if testkit.Carried(g.Wire(), word) {
			t.Errorf("the registry was sent %q", word)
		}
	}
	if !testkit.Carried(g.Wire(), "Bearer tok-") || len(g.Blobs.Wire()) == 0 {
		t.Error("no token was used, or no blob fetched")
	}
}

// login writes docker's configuration for a client.
func login(t *testing.T, p *testkit.Peel, host, user, password string) {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	config(t, p, map[string]any{"auths": map[string]any{host: map[string]string{"auth": auth}}})
}

func config(t *testing.T, p *testkit.Peel, v any) {
	t.Helper()
	dir := t.TempDir()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.json"), data)
	p.Setenv("DOCKER_CONFIG", dir)
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hosts writes a hosts.toml for a domain and returns the folder for --hosts-dir.
func hosts(t *testing.T, domain, format string, args ...any) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, domain, "hosts.toml"), fmt.Appendf(nil, format, args...))
	return dir
}

// layout is an image of one lazy and one plain layer, twice: as docker writes
// manifests and as OCI has them.
func layout(t *testing.T) (dir string, layers []testkit.Layer) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "layout")
	l, err := testkit.NewLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	layers = []testkit.Layer{
		testkit.Encode(t, testkit.Gzip, testkit.Dir("etc"), testkit.File("etc/hosts", []byte("127.0.0.1 localhost\n")), testkit.File("plain", testkit.Noise(1, 700_000))),
		testkit.Encode(t, testkit.Stargz, testkit.File("lazy", testkit.Noise(2, 2_000_000)), testkit.File("last", testkit.Noise(3, 300_000))),
	}
	docker, err := l.DockerImage(layers...)
	if err != nil {
		t.Fatal(err)
	}
	oci, err := l.Image(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("docker", docker); err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("oci", oci); err != nil {
		t.Fatal(err)
	}
	return dir, layers
}

// contents are the files of that image.
func contents() map[string][]byte {
	return map[string][]byte{
		"etc/hosts": []byte("127.0.0.1 localhost\n"), "plain": testkit.Noise(1, 700_000),
		"lazy": testkit.Noise(2, 2_000_000), "last": testkit.Noise(3, 300_000),
	}
}
