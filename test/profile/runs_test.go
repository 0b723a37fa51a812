//go:build linux

package profile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// published is an image in a registry of its own.
func published(t *testing.T) (ref string) {
	t.Helper()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "team/app", "v1", layers(t, testkit.Stargz, few)...)
	return reg.Ref("team/app", "v1")
}

// use mounts, reads some files of the workload and unmounts.
func use(t *testing.T, p *testkit.Peel, ref string, first, n int, flags ...string) {
	t.Helper()
	root := p.Mount(ref, flags...)
	readFiles(t, root, few, first, n)
	if !slices.Contains(flags, "--no-record") {
		p.Must("profile", "record", root)
	}
	p.Umount(root)
}

// learned are the files of a profile, with their weights, in order.
func learned(s shown) (names []string, weights map[string]int) {
	weights = map[string]int{}
	for _, t := range s.Touches {
		for _, p := range t.Paths {
			names = append(names, p)
			weights[p] = t.Weight
		}
	}
	return names, weights
}

func TestRunsMerge(t *testing.T) {
	t.Parallel()
	ref := published(t)
	p := testkit.NewPeel(t)
	use(t, p, ref, 0, 20)
	use(t, p, ref, 10, 20)
	use(t, p, ref, 0, 5, "--no-record")
	use(t, p, ref, 0, 5, "--entrypoint", "other", "--prefetch", "none")
	s := show(t, p, ref)
	names, weights := learned(s)
	if s.OwnRuns != 2 || len(names) != 30 {
		t.Errorf("%d runs, %d files: %v", s.OwnRuns, len(names), names)
	}
	for k := range 30 {
		want := 500
		if k >= 10 && k < 20 {
			want = 1000
		}
		if path := "/" + file(workload(k, few)); weights[path] != want {
			t.Errorf("%s, %d: weight %d, want %d", path, k, weights[path], want)
		}
	}
	if other, _ := learned(show(t, p, ref, "--entrypoint", "other")); len(other) != 5 || other[1] != "/"+file(workload(1, few)) {
		t.Errorf("of the other entrypoint: %v", other)
	}
	r := p.Run("profile", "show", ref, "--entrypoint", "none")
	if r.Code != testkit.NotFound || !strings.Contains(r.Stderr, `--entrypoint "other"`) {
		t.Errorf("%+v", r)
	}
	if out := p.Must("profile", "show", ref).Stdout; !strings.Contains(out, "2 runs, 2 of this machine") || strings.Count(out, "\n") != 33 {
		t.Error(out)
	}
	if out := p.Must("profile", "rm", ref, "--entrypoint", "other").Stdout; strings.Count(out, "\n") != 1 {
		t.Error(out)
	}
	p.Must("profile", "rm", ref)
	if r := p.Run("profile", "rm", ref); r.Code != testkit.NotFound {
		t.Errorf("%+v", r)
	}
}

// TestTwoMounts: mounts of one image at once all leave what they have read, and
// none takes the other's away.
func TestTwoMounts(t *testing.T) {
	t.Parallel()
	ref := published(t)
	p := testkit.NewPeel(t)
	const mounts = 3
	var all sync.WaitGroup
	for i := range mounts {
		root := p.Mount(ref)
		all.Go(func() {
			readFiles(t, root, few, 0, 10)
			readFiles(t, root, few, 10+10*i, 10)
			p.Must("profile", "record", root)
			p.Umount(root)
		})
	}
	all.Wait()
	s := show(t, p, ref)
	names, weights := learned(s)
	if s.OwnRuns != mounts || s.Runs != mounts || len(names) != 10+10*mounts || weights["/"+file(0)] != 1000 {
		t.Errorf("%d runs, %d files", s.OwnRuns, len(names))
	}
}

// TestKilledServer: what was written down stays, once.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	ref := published(t)
	p := testkit.NewPeel(t)
	root := p.Mount(ref)
	readFiles(t, root, few, 0, 10)
	p.Must("profile", "record", root)
	p.Must("profile", "record", root)
	if err := syscall.Kill(p.ServerPID(root), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.Must("umount", root)
	if names, _ := learned(show(t, p, ref)); len(names) != 10 {
		t.Errorf("%v", names)
	}
	use(t, p, ref, 0, 10)
	if s := show(t, p, ref); s.OwnRuns != 2 {
		t.Errorf("%d runs", s.OwnRuns)
	}
}

// TestGone: a profile goes with its image.
func TestGone(t *testing.T) {
	t.Parallel()
	ref := published(t)
	p := testkit.NewPeel(t)
	use(t, p, ref, 0, 5)
	p.Must("images", "rm", ref)
	err := filepath.WalkDir(filepath.Join(p.Cache, "profile"), func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s is left", name)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	p := testkit.NewPeel(t)
	for name, tc := range map[string]struct {
		args []string
		code int
	}{
		"no image":              {[]string{"show"}, testkit.Usage},
		"unknown command":       {[]string{"verify", "alpine"}, testkit.Usage},
		"an image on this disk": {[]string{"push", "oci:/nowhere"}, testkit.Usage},
		"no mount":              {[]string{"record", p.Tmp}, testkit.NotFound},
		"no folder":             {[]string{"record", p.Tmp + "/x"}, testkit.NotFound},
		"nothing known":         {[]string{"rm", "alpine"}, testkit.NotFound},
	} {
		if r := p.Run(append([]string{"profile"}, tc.args...)...); r.Code != tc.code || r.Stdout != "" || r.Stderr == "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
