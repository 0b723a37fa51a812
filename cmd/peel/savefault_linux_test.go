package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// TestSaveWrongBytes: what a registry sends wrong is asked for again, and
// never kept; a pipe cannot take anything back.
func TestSaveWrongBytes(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, s.Dir, "one", "shelf")
	blob := s.below.Desc.Digest.String()
	for _, tc := range []struct {
		name, to string
		times    int
		code     int
	}{
		{"layout", "oci:", saveTries - 1, 0},
		{"layout in a tar", "oci-archive:", saveTries - 1, 0},
		{"archive", "docker-archive:", saveTries - 1, 0},
		{"folder", "dir:", saveTries - 1, 0},
		{"standard output", "", 1, exitVerification},
		{"always wrong", "docker-archive:", 0, exitVerification},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.Inject(testkit.Fault{Path: blob, Times: tc.times, Do: testkit.Corrupt(s.below.Desc.Size / 2)})
			dir := t.TempDir()
			to := tc.to + filepath.Join(dir, "x")
			if tc.to == "" {
				to = "-"
			}
			got := peel(t, "save", proxy.Ref("shelf", "one"), "--platform", "linux/amd64", "-o", to)
			if got.code != tc.code || !strings.Contains(got.err, s.below.Desc.Digest.Encoded()) {
				t.Fatalf("%+v", got)
			}
			if tc.code != 0 {
				if left := leftIn(t, dir); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				return
			}
			if n := strings.Count(got.err, "once more"); n != tc.times {
				t.Errorf("told of %d tries: %s", n, got.err)
			}
			testkit.RunSkopeo(t, "copy", "--quiet", to, "dir:"+dir+"/copy")
		})
	}
}

// TestSaveInterrupted ends in the middle of a layer, and leaves nothing.
func TestSaveInterrupted(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, s.Dir, "one", "shelf")
	for _, to := range []string{"oci:", "oci-archive:", "docker-archive:", "dir:"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			proxy := testkit.NewProxy(t, reg.Host())
			release := make(chan struct{})
			t.Cleanup(func() { close(release) })
			stalled := proxy.Stalls(s.below.Desc.Digest.String(), 100_000, release)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			dir := t.TempDir()
			var out, errs bytes.Buffer
			code := make(chan int)
			go func() {
				code <- run(ctx, []string{
					"--cache", filepath.Join(t.TempDir(), "cache"), "save", proxy.Ref("shelf", "one"),
					"--platform", "linux/amd64", "-o", to + dir + "/x",
				}, streams{out: &out, err: &errs})
			}()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for !stalled() {
				<-tick.C
			}
			interrupt()
			if got := <-code; got != exitInterrupted {
				t.Errorf("exit code %d: %s%s", got, &out, &errs)
			}
			if left := leftIn(t, dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestSaveThroughLinks: what links lead to is written, and they stay.
func TestSaveThroughLinks(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	for _, to := range []string{"dir:", "oci:", "docker-archive:"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			there, link := filepath.Join(dir, "there"), filepath.Join(dir, "link")
			err := os.Mkdir(there, 0o755)
			if to == "docker-archive:" {
				there += ".tar"
				err = os.WriteFile(there, nil, 0o600)
			}
			if err := errors.Join(err, os.Symlink(there, link)); err != nil {
				t.Fatal(err)
			}
			if got := peel(t, "save", "oci:"+s.Dir+":one", "--platform", "linux/amd64", "-o", to+link); got.code != 0 {
				t.Fatalf("%+v", got)
			}
			if at, err := os.Readlink(link); err != nil || at != there {
				t.Errorf("the link leads to %q, %v", at, err)
			}
			testkit.RunSkopeo(t, "inspect", "--raw", to+there)
		})
	}
}
