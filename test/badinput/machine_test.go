//go:build linux

package badinput

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

// inNamespace turns cmd into one that first runs a script, as root in a mount
// namespace of its own.
func inNamespace(cmd *exec.Cmd, script string) *exec.Cmd {
	cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", script + ` && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/usr/bin/unshare"
	return cmd
}

// TestNoFUSE takes /dev/fuse away, as in most containers.
func TestNoFUSE(t *testing.T) {
	t.Parallel()
	const noFUSE = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9"
	reg := publish(t, testkit.Stargz)
	ref := reg.Ref("bad/input", "v1")
	p := testkit.NewPeel(t)
	r := p.Finish(inNamespace(p.Command(t.Context(), "mount", ref, p.Dir()), noFUSE))
	expect(t, p, r, testkit.Failed, "/dev/fuse", "modprobe fuse")

	r = p.Finish(inNamespace(p.Command(t.Context(), "cat", ref+":/etc/data"), noFUSE))
	if r.Code != testkit.OK || r.Stdout != string(testkit.Noise(3, 500_000)) {
		t.Errorf("cat without FUSE: exit code %d, %d bytes\n%s", r.Code, len(r.Stdout), r.Stderr)
	}
	r = p.Finish(inNamespace(p.Command(t.Context(), "doctor", "--json"), noFUSE))
	if r.Code != testkit.Failed || !strings.Contains(r.Stdout, "/dev/fuse") || !json.Valid([]byte(r.Stdout)) {
		t.Errorf("doctor without FUSE: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// tmpfs mounts one on the cache folder of a new Peel.
func tmpfs(t *testing.T, options string, flags uintptr) *testkit.Peel {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Fatalf("mounting a tmpfs (as root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("the cache's tmpfs is still in use: %v", err)
		}
	})
	p := testkit.NewPeel(t)
	p.Setenv("PEEL_CACHE", dir)
	p.Cache = dir
	return p
}

func TestReadOnlyCache(t *testing.T) {
	t.Parallel()
	reg := publish(t, testkit.Stargz)
	p := tmpfs(t, "size=1m", unix.MS_RDONLY)
	for _, args := range [][]string{{"mount", reg.Ref("bad/input", "v1"), p.Dir()}, {"ls", reg.Ref("bad/input", "v1")}} {
		expect(t, p, p.Run(args...), testkit.Failed, p.Cache, "--cache")
	}
	if r := p.Run("doctor"); r.Code != testkit.Failed || !strings.Contains(r.Stdout, p.Cache) {
		t.Errorf("doctor: exit code %d\n%s", r.Code, r.Stdout)
	}
}

// TestFullCache: what is indexed is served uncached; what must be streamed
// cannot be, and says so.
func TestFullCache(t *testing.T) {
	t.Parallel()
	const room = "size=3m"
	big := testkit.Noise(9, 8_000_000)
	for _, tc := range []struct {
		form  testkit.Form
		works bool
	}{{testkit.Stargz, true}, {testkit.ZstdChunked, true}, {testkit.Gzip, false}} {
		t.Run(string(tc.form), func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "bad/full", "v1", testkit.Encode(t, tc.form, testkit.File("big", big)))
			p := tmpfs(t, room, 0)
			dir := p.Dir()
			r := p.Run("mount", reg.Ref("bad/full", "v1"), dir)
			if !tc.works {
				expect(t, p, r, testkit.Failed, p.Cache)
				if !strings.Contains(r.Stderr, syscall.ENOSPC.Error()) && !strings.Contains(r.Stderr, "full") {
					t.Errorf("does not say that there is no space:\n%s", r.Stderr)
				}
				return
			}
			if r.Code != testkit.OK {
				t.Fatalf("exit code %d\n%s", r.Code, r.Stderr)
			}
			for range 2 {
				if got, err := os.ReadFile(filepath.Join(dir, "big")); err != nil || !bytes.Equal(got, big) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
			if n := strings.Count(p.Logs(), syscall.ENOSPC.Error()); n != 1 {
				t.Errorf("the full disk was logged %d times", n)
			}
			p.Umount(dir)
		})
	}
}
