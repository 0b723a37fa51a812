//go:build linux

package fill

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

// onTmpfs has the fixture's next runs keep their cache on a small disk.
func (x *fixture) onTmpfs(t *testing.T, size string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mounting a tmpfs (as root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("the cache's tmpfs is still in use: %v", err)
		}
	})
	x.p = testkit.NewPeel(t)
	x.p.Setenv("PEEL_CACHE", dir)
	x.p.Cache = dir
}

// TestFull: a disk that is full ends a fill with one line, has room again
// then, and is nothing to who reads.
func TestFull(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, size string }{
		{"no room for a blob", "4m"},
		{"no room for a tar", "20m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := prepare(t, testkit.Stargz, 20, testkit.Link{})
			x.onTmpfs(t, c.size)
			root := x.p.Mount(x.ref, "--fill")
			const told = "giving up"
			if !x.p.Until(patience, func() bool { return strings.Contains(x.p.Logs(), told) }) {
				t.Fatalf("nothing is told:\n%s", x.p.Logs())
			}
			x.readAll(t, root)
			if n := strings.Count(x.p.Logs(), told); n != 1 {
				t.Errorf("told %d times", n)
			}
			for _, dir := range []string{"fill", "tmp"} {
				if left, err := filepath.Glob(filepath.Join(x.p.Cache, dir, "*")); err != nil || len(left) > 0 {
					t.Errorf("left behind: %q, %v", left, err)
				}
			}
			x.p.Umount(root)
		})
	}
}
