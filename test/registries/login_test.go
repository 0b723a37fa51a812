//go:build linux

package registries

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// TestLogin logs in, mounts, and logs out. What is kept is where docker looks.
func TestLogin(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "a/b", "v1", testkit.Encode(t, testkit.Gzip, testkit.File("file", []byte("content"))))
	g := guard(t, reg.Host())
	ref := g.Ref("a/b", "v1") + ":/file"
	p := testkit.NewPeel(t)
	dir := t.TempDir()
	p.Setenv("DOCKER_CONFIG", dir)
	with := func(password string, args ...string) testkit.Result {
		cmd := p.Command(t.Context(), args...)
		cmd.Stdin = strings.NewReader(password)
		return p.Finish(cmd)
	}
	if r := with("wrong", "login", "-u", user, "--password-stdin", g.Host()); r.Code != testkit.Unauthorized {
		t.Errorf("a wrong password: exit code %d\n%s", r.Code, r.Stderr)
	}
	if r := p.Run("cat", ref); r.Code != testkit.Unauthorized {
		t.Errorf("before the login: exit code %d\n%s", r.Code, r.Stderr)
	}
	if r := with(password+"\n", "login", "-u", user, "--password-stdin", g.Host()); r.Code != testkit.OK {
		t.Fatalf("exit code %d\n%s", r.Code, r.Stderr)
	}
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	kept, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil || !strings.Contains(string(kept), auth) {
		t.Errorf("%s, %v", kept, err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "config.json")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if out := p.Must("cat", ref).Stdout; out != "content" {
		t.Errorf("%q", out)
	}
	p.Must("logout", g.Host())
	if kept, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil || strings.Contains(string(kept), auth) {
		t.Errorf("after the logout: %s, %v", kept, err)
	}
	for _, s := range []testkit.Server{g, g.Hop, g.Blobs} {
		if testkit.Carried(s.Wire(), password) || testkit.Carried(s.Wire(), auth) {
			t.Errorf("%s was sent the password", s.Host())
		}
	}
}

// TestCredentialsOfTheCommandLine: they reach the process that serves the mount,
// by no way that others could see, and the registry of the reference only.
func TestCredentialsOfTheCommandLine(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	publishPieces(t, reg)
	g := guard(t, reg.Host())
	mirror := testkit.NewProxy(t, reg.Host())
	at := hosts(t, strings.Replace(g.Host(), ":", "_", 1)+"_", "[host.\"http://%s\"]\n  capabilities = [\"pull\"]\n", mirror.Host())
	p := testkit.NewPeel(t)
	root := p.Dir()
	cmd := p.Command(t.Context(), "mount", "--username", user, "--password-stdin", "--hosts-dir", at, g.Ref("pie/ces", "v1"), root)
	cmd.Stdin = strings.NewReader(password)
	if r := p.Finish(cmd); r.Code != testkit.OK {
		t.Fatalf("exit code %d\n%s", r.Code, r.Stderr)
	}
	for _, pid := range p.Processes() {
		for _, file := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
			if err != nil || strings.Contains(string(data), password) {
				t.Errorf("%s of the server: %v\n%q", file, err, data)
			}
		}
	}
	mirror.Stop()
	start := time.Now()
	readSlowly(t, root, func(int) {})
	t.Logf("read for %v", time.Since(start).Round(time.Second))
	p.Umount(root)
	testkit.Harmless(t, "the mirror", mirror.Wire(), password)
	kept(t, g)
}

// TestToken gives a bearer token as it is.
func TestToken(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "a/b", "v1", testkit.Encode(t, testkit.Gzip, testkit.File("file", []byte("content"))))
	g := testkit.NewGuarded(t, reg.Host(), testkit.Guard{TokenLife: time.Minute, Users: map[string]string{user: password}, URLLife: 3 * time.Second})
	token := g.Issue("repository:a/b:pull")
	p := testkit.NewPeel(t)
	if out := p.Must("cat", "--token", token, g.Ref("a/b", "v1")+":/file").Stdout; out != "content" {
		t.Errorf("%q", out)
	}
	if n := len(g.Tokens.Wire()); n > 0 {
		t.Errorf("the token server was asked %d times", n)
	}
	testkit.Harmless(t, "hop", g.Hop.Wire(), token)
	testkit.Harmless(t, "blobs", g.Blobs.Wire(), token)
}
