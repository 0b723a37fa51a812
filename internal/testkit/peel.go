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
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runTime bounds one run of the binary.
const runTime = 2 * time.Minute

// The exit codes of peel, as documented.
const (
	OK           = 0
	Failed       = 1
	Usage        = 2
	NotFound     = 3
	Unauthorized = 4
	Unverified   = 5
	Network      = 6
	Interrupted  = 130
)

// A Peel is the binary with a cache, a home and a temporary folder of its own.
type Peel struct {
	Cache string
	Tmp   string // TMPDIR of every run: must be empty when they have ended
	Bin   string
	t     testing.TB
	dir   string // everything above, and the mount points
	env   []string
	cred  *syscall.Credential
}

// Result is what a run left.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// NewPeel prepares the binary, with an empty cache. When the test ends, what
// it mounted is unmounted, and mounts and processes that remain fail it.
func NewPeel(t testing.TB) *Peel {
	t.Helper()
	return newPeel(t, t.TempDir(), nil)
}

// NewPeelAs is NewPeel for an ordinary user.
func NewPeelAs(t testing.TB, uid, gid uint32) *Peel {
	t.Helper()
	// t.TempDir lies in a folder that only root may enter.
	dir, err := os.MkdirTemp("", "peel-user-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	return newPeel(t, dir, &syscall.Credential{Uid: uid, Gid: gid})
}

func newPeel(t testing.TB, dir string, cred *syscall.Credential) *Peel {
	t.Helper()
	p := &Peel{t: t, dir: dir, cred: cred, Cache: filepath.Join(dir, "cache"), Tmp: filepath.Join(dir, "tmp"), Bin: build(t)}
	home := filepath.Join(dir, "home")
	for _, d := range []string{p.Tmp, home} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if cred != nil {
			if err := os.Chown(d, int(cred.Uid), int(cred.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + p.Tmp, "PEEL_CACHE=" + p.Cache, "LC_ALL=C.UTF-8"}
	if cred != nil {
		p.adopt()
	}
	t.Cleanup(p.tidy)
	return p
}

// adopt copies the binary to where the user may run it.
func (p *Peel) adopt() {
	p.t.Helper()
	data, err := os.ReadFile(p.Bin)
	if err != nil {
		p.t.Fatal(err)
	}
	p.Bin = filepath.Join(p.dir, "peel-of-user")
	if err := os.WriteFile(p.Bin, data, 0o755); err != nil {
		p.t.Fatal(err)
	}
}

// Beside is the same binary and user with another cache and its own mount
// points, below p's.
func (p *Peel) Beside() *Peel {
	p.t.Helper()
	q := *p
	q.dir = p.Dir()
	q.Cache = filepath.Join(q.dir, "cache")
	q.env = append(append([]string(nil), p.env...), "PEEL_CACHE="+q.Cache)
	p.t.Cleanup(q.tidy)
	return &q
}

// Setenv changes the environment of later runs.
func (p *Peel) Setenv(name, value string) { p.env = append(p.env, name+"="+value) }

// build is PEEL_BIN, or peel built from this checkout: once, if nothing
// changed, as go build sees that the file in the store is up to date.
func build(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("PEEL_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(store(), "bin", "peel")
	err := locked(bin, func() error {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, "github.com/peelfs/peel/cmd/peel")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building peel: %w\n%s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// Command is a run that the caller starts; env comes on top.
func (p *Peel) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.Bin, args...)
	cmd.Dir = p.dir
	cmd.Env = append([]string(nil), p.env...)
	cmd.WaitDelay = 10 * time.Second
	if p.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	}
	return cmd
}

// Run runs the binary to its end.
func (p *Peel) Run(args ...string) Result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), runTime)
	defer cancel()
	return p.Finish(p.Command(ctx, args...))
}

// Finish runs cmd, which came from Command, to its end.
func (p *Peel) Finish(cmd *exec.Cmd) Result {
	p.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, &stderr)
	}
	r := Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	if strings.Contains(r.Stderr, "goroutine 1") || strings.Contains(r.Stderr, "panic:") {
		p.t.Errorf("%s panicked:\n%s", strings.Join(cmd.Args, " "), r.Stderr)
	}
	return r
}

// Must runs the binary and fails the test unless it succeeds.
func (p *Peel) Must(args ...string) Result {
	p.t.Helper()
	r := p.Run(args...)
	if r.Code != OK {
		p.t.Fatalf("peel %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r
}

// Dir makes an empty directory to mount on.
func (p *Peel) Dir() string {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.dir, "mnt-")
	if err != nil {
		p.t.Fatal(err)
	}
	if p.cred != nil {
		if err := os.Chown(dir, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			p.t.Fatal(err)
		}
	}
	return dir
}

// Mount mounts ref on a new directory and returns it.
func (p *Peel) Mount(ref string, flags ...string) string {
	p.t.Helper()
	dir := p.Dir()
	p.Must(append(append([]string{"mount"}, flags...), ref, dir)...)
	return dir
}

// Umount takes a mount away and waits for its server's end.
func (p *Peel) Umount(dir string) {
	p.t.Helper()
	p.Must("umount", dir)
}

// A Status is a mount as "peel ps --json" tells it.
type Status struct {
	Mountpoint   string    `json:"mountpoint"`
	Reference    string    `json:"reference"`
	Digest       string    `json:"digest"`
	ServerPID    int       `json:"server_pid"`
	Requests     int64     `json:"requests"`
	BytesFetched int64     `json:"bytes_fetched"`
	BytesPresent int64     `json:"bytes_present"`
	Since        time.Time `json:"since"`
	LastError    string    `json:"last_error"`
}

// PS lists the mounts of the cache.
func (p *Peel) PS() []Status {
	p.t.Helper()
	r := p.Must("ps", "--json")
	var out []Status
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil {
		p.t.Fatalf("peel ps --json: %v\n%s", err, r.Stdout)
	}
	return out
}

// ServerPID is the process that serves the mount on dir.
func (p *Peel) ServerPID(dir string) int {
	p.t.Helper()
	for _, s := range p.PS() {
		if s.Mountpoint == dir {
			return s.ServerPID
		}
	}
	p.t.Fatalf("peel ps does not list %s", dir)
	return 0
}

// Logs is all that servers of the cache have logged.
func (p *Peel) Logs() string {
	p.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(filepath.Join(p.Cache, "log"), func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		b.Write(data)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	return b.String()
}

// tidy takes away what the test left mounted, and complains about the rest.
func (p *Peel) tidy() {
	for _, dir := range p.Mounts() {
		r := p.Run("umount", dir)
		if r.Code != OK {
			p.t.Errorf("peel umount %s: exit code %d\n%s", dir, r.Code, r.Stderr)
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				p.t.Errorf("lazy unmount of %s: %v", dir, err)
			}
		}
	}
	p.CheckLeftovers()
	if p.t.Failed() {
		p.t.Logf("log of the servers:\n%s", p.Logs())
	}
}
