//go:build linux

package sources

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestVectors mounts what other tools wrote, where it lies.
func TestVectors(t *testing.T) {
	t.Parallel()
	dir, want, found := testkit.Vectors(t)
	if !found {
		return
	}
	layout, saved := filepath.Join(dir, "tricky"), filepath.Join(dir, "tricky.docker.tar.zst")
	work := t.TempDir()
	plain := unzstd(t, saved, work)
	copied := func(to string) {
		testkit.RunSkopeo(t, "copy", "--quiet", "oci:"+layout+":gz", to)
	}
	whole := tarOf(t, layout, filepath.Join(work, "layout.tar"))
	one := filepath.Join(work, "one.tar")
	copied("oci-archive:" + one + ":latest")
	copied("dir:" + filepath.Join(work, "dir"))
	copied("docker-archive:" + filepath.Join(work, "named.tar") + ":some/name:v1")

	for _, tc := range []struct {
		name, ref string
		clock     testkit.Clock
	}{
		{"layout, gzip", "oci:" + layout + ":gz", testkit.Exact},
		{"layout, gzip members", "oci:" + layout + ":gz-members", testkit.Exact},
		{"layout, tar", "oci:" + layout + ":tar", testkit.Exact},
		{"layout, zstd", "oci:" + layout + ":zst", testkit.Exact},
		{"layout, eStargz", "oci:" + layout + ":esgz", testkit.WholeSeconds},
		{"layout, zstd:chunked", "oci:" + layout + ":zstdchunked", testkit.WholeSeconds},
		{"archive of a layout", "oci-archive:" + whole + ":gz", testkit.Exact},
		{"archive of a layout, eStargz", "oci-archive:" + whole + ":esgz", testkit.WholeSeconds},
		{"skopeo's oci-archive", "oci-archive:" + one, testkit.Exact},
		{"skopeo's dir", "dir:" + filepath.Join(work, "dir"), testkit.Exact},
		{"skopeo's docker-archive by name", "docker-archive:" + filepath.Join(work, "named.tar") + ":some/name:v1", testkit.Exact},
		{"docker-archive, compressed", "docker-archive:" + saved, testkit.Exact},
		{"docker-archive", "docker-archive:" + plain, testkit.Exact},
		{"docker-archive, by number", "docker-archive:" + plain + ":@0", testkit.Exact},
		{"docker-dir", "docker-dir:" + untar(t, plain, filepath.Join(work, "untarred")), testkit.Exact},
		{"docker-archive without manifest.json", "docker-archive:" + archive(t, filepath.Join(work, "legacy.tar"), legacy(t, plain)...), testkit.Exact},
		{"docker-dir without manifest.json", "docker-dir:" + untar(t, filepath.Join(work, "legacy.tar"), filepath.Join(work, "legacy")), testkit.Exact},
		{"schema 1 in dir", "dir:" + filepath.Join(dir, "tricky-schema1"), testkit.Exact},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			shows(t, tc.ref, want, tc.clock)
		})
	}
}

// TestWithoutMounting reads an archive with the commands that need no mount.
func TestWithoutMounting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	saved := save(t, filepath.Join(dir, "saved.tar"), "a/b:v1", small(t))
	p := testkit.NewPeel(t)
	for _, tc := range []struct {
		name, want string
		args       []string
	}{
		{"ls", "hosts", []string{"ls", "docker-archive:" + saved + ":/etc"}},
		{"ls by name", "hosts", []string{"ls", "docker-archive:" + saved + ":a/b:v1:/etc"}},
		{"cat", "127.0.0.1 localhost\n", []string{"cat", "docker-archive:" + saved + ":/etc/hosts"}},
		{"cat by name", "127.0.0.1 localhost\n", []string{"cat", "docker-archive:" + saved + ":a/b:v1:/etc/hosts"}},
		{"inspect", "docker-archive:", []string{"inspect", "docker-archive:" + saved}},
		{"manifest", `"layers"`, []string{"manifest", "docker-archive:" + saved}},
		{"config", "diff_ids", []string{"config", "docker-archive:" + saved}},
		{"layers", "sha256:", []string{"layers", "docker-archive:" + saved}},
		{"resolve", "sha256:", []string{"resolve", "docker-archive:" + saved}},
		{"verify", "", []string{"verify", "docker-archive:" + saved}},
	} {
		if r := p.Must(tc.args...); !strings.Contains(r.Stdout, tc.want) {
			t.Errorf("%s: no %q in\n%s", tc.name, tc.want, r.Stdout)
		}
	}
	if r := p.Run("cat", "docker-archive:"+saved+":no/such:/etc/hosts"); r.Code != testkit.NotFound || !strings.Contains(r.Stderr, "a/b:v1") {
		t.Errorf("a name that is not there: exit code %d; the names that are should be told\n%s", r.Code, r.Stderr)
	}
	if r := p.Run("cat", "docker-archive:"+saved+".none:/etc/hosts"); r.Code != testkit.NotFound {
		t.Errorf("a file that is not there: exit code %d\n%s", r.Code, r.Stderr)
	}
}

func small(t *testing.T) testkit.Layer {
	t.Helper()
	return testkit.Encode(t, testkit.PlainTar, testkit.Dir("etc"), testkit.File("etc/hosts", []byte("127.0.0.1 localhost\n")),
		testkit.File("noise", testkit.Noise(5, 200_000)))
}
