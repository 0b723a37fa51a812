//go:build linux

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// containerdStart is how long the daemon may take until it answers.
const containerdStart = 30 * time.Second

// A daemon is a containerd with a root, a state folder and a socket of its own.
type daemon struct {
	b      *testing.B
	dir    string
	socket string
	cmd    *exec.Cmd
	log    bytes.Buffer
}

// newDaemon starts Debian's containerd, with nothing in it.
func newDaemon(b *testing.B) *daemon {
	b.Helper()
	d := &daemon{b: b, dir: b.TempDir()}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.dir, &fs); err != nil {
		b.Fatal(err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		b.Fatalf("%s lies on an overlayfs, on which containerd's overlayfs does not work: set TMPDIR", d.dir)
	}
	d.socket = filepath.Join(d.dir, "sock")
	config := filepath.Join(d.dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
		filepath.Join(d.dir, "root"), filepath.Join(d.dir, "state"), d.socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	d.cmd = exec.CommandContext(context.WithoutCancel(b.Context()), "containerd", "--config", config)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	if err := d.cmd.Start(); err != nil {
		b.Fatalf("%v (make deps-bench installs it)", err)
	}
	b.Cleanup(d.stop)
	for deadline := time.Now().Add(containerdStart); d.ctr("version") != nil; {
		if time.Now().After(deadline) {
			b.Fatalf("containerd does not answer: %v\n%s", d.ctr("version"), d.log.String())
		}
	}
	return d
}

func (d *daemon) ctr(args ...string) error {
	cmd := exec.CommandContext(d.b.Context(), "ctr", append([]string{"--address", d.socket}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %v: %w\n%s", args, err, out)
	}
	return nil
}

// must runs a command of ctr.
func (d *daemon) must(args ...string) {
	d.b.Helper()
	if err := d.ctr(args...); err != nil {
		d.b.Fatal(err)
	}
}

// pull pulls and unpacks ref.
func (d *daemon) pull(ref string) {
	d.b.Helper()
	d.must("images", "pull", "--snapshotter", "overlayfs", "--plain-http", ref)
}

// stop ends the daemon and takes away what it kept, which is large. Nothing is
// mounted by a pull that has ended.
func (d *daemon) stop() {
	if d.cmd == nil {
		return
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.b.Error(err)
	}
	if err := d.cmd.Wait(); err != nil {
		d.b.Logf("containerd: %v", err)
	}
	d.cmd = nil
	if err := os.RemoveAll(filepath.Join(d.dir, "root")); err != nil {
		d.b.Error(err)
	}
}
