//go:build linux

package testkit

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// startTime bounds how long a child process may take until its port answers.
const startTime = 20 * time.Second

// daemon starts a server of another make as a child process on a free port of
// loopback: command gives its arguments for a folder and an address. It ends
// with the test. A port that another process took meanwhile is left to it.
func daemon(t testing.TB, name string, command func(dir, addr string) []string) (addr string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: make deps installs it", err)
	}
	const tries = 5
	for range tries {
		dir := t.TempDir()
		addr = freePort(t)
		if err = launch(t, path, dir, addr, command(dir, addr)); err == nil {
			return addr
		}
	}
	t.Fatalf("%s: %v", name, err)
	return ""
}

// launch returns when the process answers on addr.
func launch(t testing.TB, path, dir, addr string, args []string) error {
	t.Helper()
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "OTEL_TRACES_EXPORTER=none"}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	ended := make(chan struct{})
	var exit error // to be read when ended is closed
	go func() {
		defer close(ended)
		exit = cmd.Wait()
	}()
	stop := func() {
		cancel()
		<-ended
		_ = out.Close()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); <-tick.C {
		select {
		case <-ended:
			stop()
			said, _ := os.ReadFile(out.Name())
			return fmt.Errorf("ended at once: %w: %s", exit, said)
		default:
		}
		var d net.Dialer
		if conn, err := d.DialContext(ctx, "tcp", addr); err == nil {
			_ = conn.Close()
			t.Cleanup(stop)
			return nil
		}
	}
	stop()
	said, _ := os.ReadFile(out.Name())
	return fmt.Errorf("does not answer on %s: %s", addr, said)
}

func freePort(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", anyPort)
	if err != nil {
		t.Fatalf("listening on loopback: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}
