//go:build linux

package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Container is what runc starts: a command over a root file system that it
// may write to, without a network, a terminal or limits.
type Container struct {
	Lower []string // directories that make up the root, topmost first
	Args  []string
	Env   []string
	Stdin string
}

// Ran is what a container left.
type Ran struct {
	First  time.Duration // from Run's beginning to the first byte of output; 0 if there was none
	Total  time.Duration // from there to its end
	Output string        // of both streams
}

// Run runs c to its end, in a temporary folder in memory, and takes everything
// away again. It fails the test if the command does.
func (c Container) Run(t testing.TB, timeout time.Duration) Ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), timeout)
	defer cancel()
	r, err := c.run(ctx, t.TempDir())
	if err != nil {
		t.Fatalf("container of %s: %v\n%s", strings.Join(c.Args, " "), err, r.Output)
	}
	return r
}

func (c Container) run(ctx context.Context, dir string) (r Ran, err error) {
	out := &firstOutput{begin: time.Now()}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700"); err != nil {
		return r, fmt.Errorf("tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)) }()
	root, err := c.overlay(dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unix.Unmount(root, unix.MNT_DETACH)) }()
	spec, err := json.Marshal(c.spec(root))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), spec, 0o600)
	}
	if err != nil {
		return r, err
	}
	id := fmt.Sprintf("peel-%d-%d", os.Getpid(), out.begin.UnixNano())
	runc := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "runc", append([]string{"--root", filepath.Join(dir, "runc")}, args...)...)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.WaitDelay = time.Second
		return cmd
	}
	cmd := runc(ctx, "run", "--bundle", dir, id)
	cmd.Stdin = strings.NewReader(c.Stdin)
	err = cmd.Run()
	r = Ran{First: out.first, Total: time.Since(out.begin), Output: out.text.String()}
	if err != nil {
		// It may not be there any more, which is as well.
		_ = runc(context.WithoutCancel(ctx), "delete", "--force", id).Run()
	}
	return r, errors.Join(err, ctx.Err())
}

// overlay mounts the root.
func (c Container) overlay(dir string) (string, error) {
	root, upper, work := filepath.Join(dir, "root"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{root, upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	options := "lowerdir=" + strings.Join(c.Lower, ":") + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("overlayfs: %w", err)
	}
	return root, nil
}

// spec is the configuration that runc reads (OCI runtime specification 1.0).
func (c Container) spec(root string) any {
	type object = map[string]any
	mount := func(to, kind string, options ...string) object {
		return object{"destination": to, "type": kind, "source": kind, "options": options}
	}
	var namespaces []object
	for _, kind := range []string{"pid", "network", "ipc", "uts", "mount"} {
		namespaces = append(namespaces, object{"type": kind})
	}
	capabilities := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_KILL"}
	return object{
		"ociVersion": "1.0.2",
		"process": object{
			"user": object{"uid": 0, "gid": 0}, "cwd": "/", "args": c.Args,
			"env":          append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8"}, c.Env...),
			"capabilities": object{"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
		},
		"root": object{"path": root},
		"mounts": []object{
			mount("/proc", "proc"),
			mount("/dev", "tmpfs", "nosuid", "mode=755"),
			mount("/tmp", "tmpfs", "mode=1777"),
		},
		"linux": object{"namespaces": namespaces},
	}
}

// firstOutput keeps what is written, and when that began.
type firstOutput struct {
	begin time.Time

	mu    sync.Mutex // guards what follows
	first time.Duration
	text  bytes.Buffer
}

func (o *firstOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first == 0 && len(p) > 0 {
		o.first = time.Since(o.begin)
	}
	return o.text.Write(p)
}

// DropCaches writes everything to disk and has the kernel forget all pages,
// names and inodes that it could read again. It takes root.
func DropCaches(t testing.TB) {
	t.Helper()
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		t.Fatal(err)
	}
}
