//go:build linux

package badinput

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// promptly is how long an interrupted run may take to end.
const promptly = 5 * time.Second

// TestInterrupt stops a mount with Ctrl-C while it waits for each thing it
// waits for.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		form testkit.Form
		path string // what the registry does not send
		n    int64  // after how many bytes
	}{
		{"manifest", testkit.Stargz, "/manifests/", 0},
		{"half a manifest", testkit.Stargz, "/manifests/", 100},
		{"configuration and indexes", testkit.Stargz, "/blobs/", 0},
		{"half an index", testkit.ZstdChunked, "/blobs/", 50},
		{"streaming a layer", testkit.Gzip, "/blobs/", 100_000},
	} {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			t.Run(tc.name+"/"+signal.String(), func(t *testing.T) {
				t.Parallel()
				reg := publish(t, tc.form)
				proxy := testkit.NewProxy(t, reg.Host())
				release := make(chan struct{})
				t.Cleanup(func() { close(release) })
				stalled := proxy.Stalls(tc.path, tc.n, release)
				p := testkit.NewPeel(t)
				cmd := p.Command(t.Context(), "mount", proxy.Ref("bad/input", "v1"), p.Dir())
				r := interrupt(t, p, cmd, signal, func(context.Context) bool { return stalled() })
				expect(t, p, r, testkit.Interrupted)
				if got := p.PS(); len(got) > 0 {
					t.Errorf("peel ps lists %+v", got)
				}
			})
		}
	}
}

// TestKilledParent: the process that will serve does not outlive the command
// that waits for it.
func TestKilledParent(t *testing.T) {
	t.Parallel()
	reg := publish(t, testkit.Gzip)
	proxy := testkit.NewProxy(t, reg.Host())
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	stalled := proxy.Stalls("/blobs/", 1000, release)
	p := testkit.NewPeel(t)
	cmd := p.Command(t.Context(), "mount", proxy.Ref("bad/input", "v1"), p.Dir())
	interrupt(t, p, cmd, os.Kill, func(context.Context) bool { return stalled() })
	if !p.Until(promptly, func() bool { return len(p.Processes()) == 0 }) {
		t.Errorf("still running after %v: %v", promptly, p.Processes())
	}
	if got := p.PS(); len(got) > 0 {
		t.Errorf("peel ps lists %+v", got)
	}
}

// TestInterruptForeground stops a mount that is up and serves.
func TestInterruptForeground(t *testing.T) {
	t.Parallel()
	reg := publish(t, testkit.Stargz)
	p := testkit.NewPeel(t)
	dir := p.Dir()
	cmd := p.Command(t.Context(), "mount", "--foreground", reg.Ref("bad/input", "v1"), dir)
	r := interrupt(t, p, cmd, os.Interrupt, func(context.Context) bool {
		_, err := os.Stat(filepath.Join(dir, "etc"))
		return err == nil
	})
	if r.Code != testkit.OK && r.Code != testkit.Interrupted {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
	p.CheckLeftovers()
}

// interrupt starts cmd, waits until it is where it shall be, and signals it.
func interrupt(t *testing.T, p *testkit.Peel, cmd *exec.Cmd, signal os.Signal, there func(context.Context) bool) testkit.Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !p.Until(20*time.Second, func() bool { return there(t.Context()) }) {
		t.Error("the run did not come to where it should be stopped")
	}
	start := time.Now()
	if err := cmd.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	err := cmd.Wait()
	if took := time.Since(start); took > promptly {
		t.Errorf("it ended after %v (%v)", took, err)
	}
	return testkit.Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
}
