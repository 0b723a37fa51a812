//go:build linux

package plain

import (
	"syscall"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// promptly is how long a process may take to end after a signal.
const promptly = 10 * time.Second

// TestInterrupted stops a first mount half-way; the next one goes on there.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, f := range forms() {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			t.Run(f.name+"/"+signal.String(), func(t *testing.T) {
				t.Parallel()
				m := newImage(t, f)
				m.proxy.SetLink(testkit.Link{Delay: 5 * time.Millisecond, BytesPerSecond: 20_000_000})
				p := testkit.NewPeel(t)
				m.stop(t, p, signal)
				m.proxy.Heal()
				root := p.Mount(m.ref)
				sameAll(t, root, m.entries)
				var spans int64 // a span of each layer
				for _, l := range p.Evict() {
					spans += l.Size / l.Spans
				}
				// From the beginning again would be 1.5. Part of what the proxy
				// has sent lies in the buffers of sockets: much, if the
				// machine is busy.
				m.fetched(t, 1.3, spans)
			})
		}
	}
}

// stop mounts the image and signals the command, and if it dies at once the
// server too, when half of a layer has come.
func (m image) stop(t *testing.T, p *testkit.Peel, signal syscall.Signal) {
	t.Helper()
	release := make(chan struct{})
	half := m.proxy.Stalls("/blobs/", m.size/4, release)
	defer close(release)
	cmd := p.Command(t.Context(), "mount", m.ref, p.Dir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !p.Until(30*time.Second, half) {
		t.Error("the mount did not come half-way")
	}
	pids := []int{cmd.Process.Pid}
	if signal == syscall.SIGKILL {
		pids = p.Processes()
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Error(err)
		}
	}
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); signal == syscall.SIGINT && code != testkit.Interrupted {
		t.Errorf("the command ended with %d: %v", code, err)
	}
	if !p.Until(promptly, func() bool { return len(p.Processes()) == 0 }) {
		t.Errorf("still running after %v: %v", promptly, p.Processes())
	}
}
