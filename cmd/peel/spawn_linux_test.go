package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/remote"
)

// ends returns both ends of a leash.
func ends(t *testing.T) (parent, server *net.UnixConn) {
	t.Helper()
	parent, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	if server, err = unixConn(theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = parent.Close(), server.Close() })
	return parent, server
}

func TestFollow(t *testing.T) {
	t.Parallel()
	ready := &mounted{Record: fs.Record{Mountpoint: "/m", ServerPID: 7}, Local: true}
	bad := &failure{Message: "m", Remedy: "r", Code: 5}
	streamed := []fs.LayerProgress{{Digest: "sha256:00", State: "streaming", Done: 1, Total: 2}}
	for _, tc := range []struct {
		name string
		says []message
		want mounted
		fail error // nil: the server is told that it may stay
	}{
		{"ready", []message{{Ready: ready}}, *ready, nil},
		{"ready after progress", []message{{Progress: streamed}, {Progress: streamed}, {Ready: ready}}, *ready, nil},
		{"error", []message{{Progress: streamed}, {Error: bad}}, mounted{}, bad},
		{"silent death", nil, mounted{}, errors.New("EOF")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			parent, server := ends(t)
			acked := make(chan bool)
			go func() { // ends with the parent's end of the leash
				for _, m := range tc.says {
					_ = json.NewEncoder(server).Encode(m)
				}
				if tc.fail != nil {
					_ = server.CloseWrite()
				}
				n, _ := server.Read(make([]byte, 1))
				acked <- n == 1
			}()
			o := &mountOptions{app: &app{streams: streams{err: &bytes.Buffer{}}}}
			got, err := o.follow(t.Context(), parent)
			if (err == nil) != (tc.fail == nil) || err != nil && err.Error() != tc.fail.Error() {
				t.Errorf("error %v, want %v", err, tc.fail)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			_ = parent.Close()
			if ok := <-acked; ok != (tc.fail == nil) {
				t.Errorf("the server was told that it may stay: %v", ok)
			}
		})
	}
}

func TestReadyNeedsAnAudience(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		parent func(*net.UnixConn) error
		want   error
	}{
		{"stays", func(c *net.UnixConn) error { _, err := c.Write([]byte{'\n'}); return err }, nil},
		{"has gone", (*net.UnixConn).Close, errHungUp},
		{"was interrupted", (*net.UnixConn).CloseWrite, errHungUp},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			parent, server := ends(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			l := newLeash(&mountOptions{}, server)
			done := make(chan struct{})
			go func() { // ends with the leash
				defer close(done)
				l.listen(cancel)
			}()
			if err := tc.parent(parent); err != nil {
				t.Fatal(err)
			}
			if err := l.ready(mounted{}); !errors.Is(err, tc.want) {
				t.Errorf("ready: %v, want %v", err, tc.want)
			}
			<-done
			if got := context.Cause(ctx); !errors.Is(got, tc.want) {
				t.Errorf("the server's context ended with %v, want %v", got, tc.want)
			}
		})
	}
}

func TestServerArgs(t *testing.T) {
	t.Parallel()
	o := &mountOptions{app: &app{clientFlags: clientFlags{plainHTTP: true, hostsDir: t.TempDir()}, logLevel: "debug"}, allowOther: true, early: true}
	o.platform, o.index = "linux/arm64", "example.com/indexes"
	o.tuning = tuning{prefetch: prefetchNone, noRecord: true, entrypoint: "sh", fill: true, fillRate: 10_000_000, trace: "/t", memory: 32 << 20}
	if err := errors.Join(o.pull.Set("always"), o.require.Set("proved")); err != nil {
		t.Fatal(err)
	}
	r, err := o.request("alpine")
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.serverArgs(job{request: r, dir: "/-m", cacheDir: "/c"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mount", "--leashed", "--cache=/c", "--pull=always", "--require=proved", "--platform=linux/arm64",
		"--index=example.com/indexes", "--log-level=debug",
		"--hosts-dir=" + o.hostsDir, "--plain-http",
		"--prefetch=none", "--no-record", "--fill", "--entrypoint=sh", "--trace=/t", "--fill-rate=10000000", "--memory=33554432",
		"--allow-other", "--early", "--", "docker.io/library/alpine:latest", "/-m",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	a := &app{}
	cmd := a.mountCommand()
	if err := cmd.ParseFlags(slices.DeleteFunc(got[1:], func(s string) bool {
		return strings.HasPrefix(s, "--cache") || strings.HasPrefix(s, "--log") || strings.HasPrefix(s, "--hosts") || s == "--plain-http"
	})); err != nil {
		t.Errorf("the server would not understand: %v", err)
	}
}

func TestMountIsRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	if err := os.Mkdir(filepath.Join(cache, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, dir, says string
	}{
		{"absent", filepath.Join(cache, "absent"), "no such file"},
		{"file", file, "not a directory"},
		{"mounted", "/proc", "mounted there already"},
		{"in the cache", filepath.Join(cache, "in"), "must not lie in each other"},
		{"around the cache", filepath.Dir(cache), "must not lie in each other"},
		{"the cache", cache, "must not lie in each other"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			// Nothing listens there: whoever asks a registry first takes long and fails otherwise.
			got := peel(t, "mount", "--cache", cache, "127.0.0.1:1/a:b", tc.dir)
			if got.code != 1 || got.out != "" || !strings.Contains(got.err, tc.says) {
				t.Errorf("%+v does not say %q", got, tc.says)
			}
		})
	}
}

func TestOneMountAtATime(t *testing.T) {
	t.Parallel()
	j := &job{dir: "/m", cacheDir: t.TempDir()}
	release, err := j.claim()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.claim(); err == nil || !strings.Contains(err.Error(), "mount on /m: another peel mount") {
		t.Errorf("claimed twice: %v", err)
	}
	release()
	release, err = j.claim()
	if err != nil {
		t.Fatalf("claim again: %v", err)
	}
	release()
}

func TestWaitGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := waitGone(ctx, os.Getpid()); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for itself: %v", err)
	}
	if err := waitGone(t.Context(), 1<<22+1); err != nil { // above the largest pid_max
		t.Errorf("waiting for nobody: %v", err)
	}
}

func TestLogPath(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, dir := range []string{"/mnt", "/mnt/", "/mnt-", "/a/b", "/a-b", "/" + strings.Repeat("x", 300), "/ü", "/\xff"} {
		name := filepath.Base(logPath("/c", dir))
		if old, ok := seen[name]; ok || len(name) > 120 || strings.ContainsFunc(name, func(r rune) bool { return r > '~' || r <= ' ' }) {
			t.Errorf("%q logs to %q, %q to the same", dir, name, old)
		}
		seen[name] = dir
	}
}

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	f, err := openLog(t.TempDir(), "/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log := &boundedLog{f: f}
	line := bytes.Repeat([]byte("x"), 1<<20)
	for range 2*maxLog/len(line) + 1 {
		if _, err := log.Write(line); err != nil {
			t.Fatal(err)
		}
		if fi, err := f.Stat(); err != nil || fi.Size() > maxLog {
			t.Fatalf("log has %d bytes, %v", fi.Size(), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(f.Name(), &st); err != nil || st.Mode&0o077 != 0 || st.Size != int64(len(line)) {
		t.Errorf("mode %o, size %d, %v", st.Mode, st.Size, err)
	}
}

func TestLastError(t *testing.T) {
	t.Parallel()
	now := time.Now()
	failed := func(d time.Duration) *fs.ReadFailure {
		return &fs.ReadFailure{Time: now.Add(d), Path: "/bin/sh", Error: "layer x: span 1"}
	}
	for _, tc := range []struct {
		name string
		wire remote.Stats
		read *fs.ReadFailure
		want string
	}{
		{"none", remote.Stats{}, nil, ""},
		{"read", remote.Stats{}, failed(0), "/bin/sh: layer x: span 1"},
		{"read because of the registry", remote.Stats{LastError: "h: refused", LastErrorHost: "h", LastErrorAt: now}, failed(1), "/bin/sh: layer x: span 1"},
		{"registry", remote.Stats{LastError: "h: refused", LastErrorHost: "h", LastErrorAt: now}, nil, "h: refused"},
		{"registry after a read", remote.Stats{LastError: "refused", LastErrorHost: "h", LastErrorAt: now}, failed(-1), "h: refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := lastError(tc.wire, tc.read); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestPsTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	since := time.Now().Add(-3 * time.Hour)
	o := &psOptions{app: &app{streams: streams{out: &out}}}
	err := o.print([]fs.Status{
		{
			Record: fs.Record{Mountpoint: "/mnt/a", Reference: "docker.io/library/alpine:3", Digest: "sha256:0123456789abcdef", ServerPID: 12, Since: since},
			State:  "serving", Requests: 9, BytesFetched: 1_234_567, BytesPresent: 2_000_000, BytesTotal: 7_000_000_000,
		},
		{
			Record: fs.Record{Mountpoint: "/mnt/longer", Reference: "ghcr.io/a/b:1", Digest: "sha256:ff", ServerPID: 13, Since: since},
			State:  "dead", LastError: "ghcr.io: refused", LastFailure: &fs.ReadFailure{Time: since, Path: "/bin/sh", Error: "layer x: gone"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "ps", out.String())
}

// A server that may not mount tells who started it why.
func TestServerTellsWhatItsChecksFound(t *testing.T) {
	parent, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "mount", "--leashed", "--cache="+t.TempDir(), "--", "alpine", "/proc")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	if err := errors.Join(cmd.Start(), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	o := &mountOptions{app: &app{streams: streams{err: &bytes.Buffer{}}}}
	if err := o.sendSecrets(parent); err != nil {
		t.Fatal(err)
	}
	_, err = o.follow(t.Context(), parent)
	if told := new(failure); !errors.As(err, &told) || !strings.Contains(told.Message, "mounted there already") || told.Remedy == "" {
		t.Errorf("told %v", err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the server succeeded")
	}
}
