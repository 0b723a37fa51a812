//go:build linux

package badinput

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// expect checks how a run ended, and that it left nothing.
func expect(t *testing.T, p *testkit.Peel, r testkit.Result, code int, words ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d\n%s", r.Code, code, r.Stderr)
	}
	if !strings.HasPrefix(r.Stderr, "peel: ") {
		t.Errorf("not a message of peel: %q", r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("does not say %q:\n%s", w, r.Stderr)
		}
	}
	if lines := strings.Count(strings.TrimSpace(r.Stderr), "\n") + 1; lines > 4 {
		t.Errorf("%d lines of message:\n%s", lines, r.Stderr)
	}
	p.CheckLeftovers()
}

func publish(t *testing.T, f testkit.Form) *testkit.Registry {
	t.Helper()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "bad/input", "v1", testkit.Encode(t, f, testkit.Dir("etc"), testkit.File("etc/data", testkit.Noise(3, 500_000))))
	return reg
}

func TestReferences(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, ref string }{
		{"upper case", "Alpine/Name"},
		{"a URL", "https://registry.example/a/b"},
		{"empty", ""},
		{"spaces", "alpine latest"},
		{"a short digest", "alpine@sha256:123"},
		{"only a tag", ":latest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := testkit.NewPeel(t)
			expect(t, p, p.Run("mount", tc.ref, p.Dir()), testkit.Usage, tc.ref)
			expect(t, p, p.Run("ls", tc.ref), testkit.Usage, tc.ref)
		})
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	p := testkit.NewPeel(t)
	for _, args := range [][]string{
		{"mount"},
		{"mount", "alpine"},
		{"mount", "alpine", "a", "b"},
		{"mount", "--no-such-flag", "alpine", "/mnt"},
		{"no-such-command"},
		{"umount"},
		{"cat"},
		{"ls"},
		{"mount", "--pull", "sometimes", "alpine", "/mnt"},
		{"mount", "--platform", "no/such/platform/at/all", "alpine", "/mnt"},
	} {
		expect(t, p, p.Run(args...), testkit.Usage)
	}
}

func TestRegistryRefuses(t *testing.T) {
	t.Parallel()
	reg := publish(t, testkit.Stargz)
	basic := http.Header{"Www-Authenticate": {`Basic realm="registry"`}}
	for _, tc := range []struct {
		name, ref string
		fault     *testkit.Fault
		code      int
		words     []string
	}{
		{"unknown image", "no/such:v1", nil, testkit.NotFound, []string{"no/such"}},
		{"unknown tag", "bad/input:v2", nil, testkit.NotFound, []string{"bad/input:v2"}},
		{"unknown digest", "bad/input@sha256:" + strings.Repeat("0", 64), nil, testkit.NotFound, []string{"sha256:000"}},
		{"login needed", "bad/input:v1", &testkit.Fault{Do: testkit.Answer(http.StatusUnauthorized, basic)}, testkit.Unauthorized, []string{"login"}},
		{"no permission", "bad/input:v1", &testkit.Fault{Do: testkit.Answer(http.StatusForbidden, nil)}, testkit.Unauthorized, []string{"bad/input"}},
		{"no permission for the layer", "bad/input:v1", &testkit.Fault{Path: "/blobs/", Do: testkit.Answer(http.StatusForbidden, nil)}, testkit.Unauthorized, []string{"bad/input"}},
		{"not a registry", "bad/input:v1", &testkit.Fault{Do: testkit.Serve([]byte("<html>hello</html>"), http.Header{"Content-Type": {"text/html"}})}, testkit.Failed, []string{"bad/input", "web page"}},
		{"manifest without end", "bad/input:v1", &testkit.Fault{Path: "/manifests/", Do: testkit.Serve(make([]byte, 30<<20), http.Header{"Content-Type": {ocispec.MediaTypeImageManifest}})}, testkit.Failed, []string{"more than 8388608 bytes"}},
		{"schema 1 without layers", "bad/input:v1", &testkit.Fault{Path: "/manifests/", Do: testkit.Serve([]byte(`{"schemaVersion":1,"fsLayers":[]}`), http.Header{"Content-Type": {"application/vnd.docker.distribution.manifest.v1+json"}})}, testkit.Failed, []string{"fsLayers"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proxy := testkit.NewProxy(t, reg.Host())
			if tc.fault != nil {
				proxy.Inject(*tc.fault)
			}
			p := testkit.NewPeel(t)
			dir := p.Dir()
			expect(t, p, p.Run("mount", proxy.Host()+"/"+tc.ref, dir), tc.code, tc.words...)
			if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
				t.Errorf("the directory is no longer as it was: %v, %v", names, err)
			}
		})
	}
}

func TestPlatform(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	s := testkit.Debian(t)[0]
	reg.Push(t, s.Layout, testkit.Docker, "bad/platform")
	p := testkit.NewPeel(t)
	ref := reg.Ref("bad/platform", testkit.Docker)
	expect(t, p, p.Run("mount", "--platform", "linux/riscv64", ref, p.Dir()), testkit.NotFound, "linux/riscv64", "linux/amd64", "linux/s390x")
	p.Must("ls", "--platform", "linux/s390x", ref)
}

func TestPortClosed(t *testing.T) {
	t.Parallel()
	reg := publish(t, testkit.Stargz)
	reg.Stop()
	p := testkit.NewPeel(t)
	expect(t, p, p.Run("mount", reg.Ref("bad/input", "v1"), p.Dir()), testkit.Network, reg.Host())
}

func TestTargets(t *testing.T) {
	t.Parallel()
	reg := publish(t, testkit.Stargz)
	ref := reg.Ref("bad/input", "v1")
	p := testkit.NewPeel(t)
	file := filepath.Join(p.Dir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(p.Dir(), "missing")
	inCache := filepath.Join(p.Cache, "blobs")
	expect(t, p, p.Run("mount", ref, file), testkit.Failed, file)
	expect(t, p, p.Run("mount", ref, missing), testkit.Failed, missing)
	if _, err := os.Stat(missing); err == nil {
		t.Errorf("%s was made", missing)
	}
	p.Must("ls", ref)
	expect(t, p, p.Run("mount", ref, inCache), testkit.Failed, inCache)
	expect(t, p, p.Run("umount", p.Dir()), testkit.NotFound, "mnt-")
	expect(t, p, p.Run("cat", ref+":/etc"), testkit.Failed, "/etc")
	expect(t, p, p.Run("cat", ref+":/nothing/here"), testkit.NotFound, "/nothing/here")
	expect(t, p, p.Run("ls", ref+":/nothing/here"), testkit.NotFound, "/nothing/here")

	dir := p.Mount(ref)
	r := p.Run("mount", ref, dir)
	if r.Code != testkit.Failed || !strings.Contains(r.Stderr, dir) {
		t.Errorf("mounting twice: exit code %d\n%s", r.Code, r.Stderr)
	}
	if got := p.PS(); len(got) != 1 {
		t.Errorf("peel ps after mounting twice: %+v", got)
	}
	p.Umount(dir)
	p.CheckLeftovers()
}
