//go:build linux

package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pullTime bounds one pull, and whatever else is asked of a peer.
const pullTime = 6 * time.Minute

// A Puller pulls and unpacks images whole, into a store of its own that is
// empty at first.
type Puller interface {
	Pull(ref string)
	Mount(ref string) (dir string) // of a pulled image; ends with the test
}

// A Containerd is Debian's containerd with a root, a state folder and a socket
// of its own, and its ctr.
type Containerd struct {
	t           testing.TB
	dir, socket string
}

// NewContainerd starts containerd. It ends with the test.
func NewContainerd(t testing.TB) *Containerd {
	t.Helper()
	c := &Containerd{t: t, dir: t.TempDir()}
	c.socket = filepath.Join(c.dir, "sock")
	config := filepath.Join(c.dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
		filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), c.socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "containerd", "--config", config)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make deps-bench installs it)", err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Logf("containerd: %v", err)
		}
	})
	var err error
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); {
		if err = c.ctr("version"); err == nil {
			return c
		}
	}
	t.Fatalf("containerd does not answer: %v", err)
	return nil
}

// Pull pulls and unpacks.
func (c *Containerd) Pull(ref string) {
	c.t.Helper()
	if err := c.ctr("images", "pull", "--snapshotter", "overlayfs", "--plain-http", ref); err != nil {
		c.t.Fatal(err)
	}
}

// Mount mounts a view of the unpacked image.
func (c *Containerd) Mount(ref string) string {
	c.t.Helper()
	dir := c.t.TempDir()
	if err := c.ctr("images", "mount", "--snapshotter", "overlayfs", ref, dir); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			c.t.Error(err)
		}
	})
	return dir
}

func (c *Containerd) ctr(args ...string) error {
	_, err := peer(c.t, "ctr", append([]string{"--address", c.socket}, args...))
	return err
}

// A Podman is Debian's podman with a store of its own.
type Podman struct {
	t   testing.TB
	dir string
}

// NewPodman prepares an empty store.
func NewPodman(t testing.TB) *Podman {
	t.Helper()
	dir, err := os.MkdirTemp("", "podman-") //nolint:usetesting // podman refuses long paths
	if err != nil {
		t.Fatal(err)
	}
	p := &Podman{t: t, dir: dir}
	if err := os.WriteFile(filepath.Join(p.dir, "policy.json"), []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // podman keeps its overlayfs a private mount
		err := unix.Unmount(filepath.Join(dir, "root", "overlay"), unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			err = nil
		}
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Pull pulls and unpacks.
func (p *Podman) Pull(ref string) {
	p.t.Helper()
	p.podman("pull", "--quiet", "--tls-verify=false", "--signature-policy", filepath.Join(p.dir, "policy.json"), ref)
}

// Mount mounts the unpacked image.
func (p *Podman) Mount(ref string) string {
	p.t.Helper()
	out := p.podman("image", "mount", ref)
	p.t.Cleanup(func() { p.podman("image", "unmount", "--force", ref) })
	return strings.TrimSpace(out)
}

func (p *Podman) podman(args ...string) string {
	p.t.Helper()
	out, err := peer(p.t, "podman", append([]string{
		"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "run"), "--tmpdir", filepath.Join(p.dir, "tmp"),
		"--storage-driver", "overlay", "--events-backend", "none", "--cgroup-manager", "cgroupfs",
	}, args...))
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// peer runs a program of somebody else's and returns what it printed.
func peer(t testing.TB, name string, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), pullTime)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &stderr)
	}
	return stdout.String(), nil
}
