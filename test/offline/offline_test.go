//go:build linux

package offline

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	patience    = 5 * time.Second  // --timeout: how long reads wait for a registry that is gone
	retryBudget = 20 * time.Second // that, and time to notice
	recovery    = 10 * time.Second // after which a registry that is back is asked again
)

// fixture is an image mounted once, one of its files read.
type fixture struct {
	reg    *testkit.Registry
	p      *testkit.Peel
	tag    string
	digest string
}

var (
	fetched   = testkit.Noise(1, 300_000)
	unfetched = testkit.Noise(2, 300_000)
)

func prepare(t *testing.T, f testkit.Form) fixture {
	t.Helper()
	x := fixture{reg: testkit.NewRegistry(t), p: testkit.NewPeel(t)}
	d := x.reg.Publish(t, "off/line", "v1", testkit.Encode(t, f,
		testkit.File("fetched", fetched), testkit.File("unfetched", unfetched)))
	x.tag = x.reg.Ref("off/line", "v1")
	x.digest = x.reg.Host() + "/off/line@" + d.Digest.String()
	root := x.p.Mount(x.tag)
	x.reads(t, root)
	x.p.Umount(root)
	return x
}

func (x fixture) reads(t *testing.T, root string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(root, "fetched")); err != nil || !bytes.Equal(got, fetched) {
		t.Errorf("what was fetched: %d bytes, %v", len(got), err)
	}
}

func TestSecondMount(t *testing.T) {
	t.Parallel()
	for _, form := range []testkit.Form{testkit.Stargz, testkit.ZstdChunked, testkit.Gzip} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			x := prepare(t, form)
			x.reg.Stop()
			for _, ref := range []string{x.tag, x.digest} {
				start := time.Now()
				root := x.p.Mount(ref)
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("mounting %s took %v", ref, took)
				}
				x.reads(t, root)
				if form == testkit.Gzip { // streamed, so all of it is there
					if got, err := os.ReadFile(filepath.Join(root, "unfetched")); err != nil || !bytes.Equal(got, unfetched) {
						t.Errorf("streamed file: %d bytes, %v", len(got), err)
					}
				}
				x.p.Umount(root)
			}
		})
	}
}

// TestUnfetched also brings the registry back: the mount recovers.
func TestUnfetched(t *testing.T) {
	t.Parallel()
	x := prepare(t, testkit.Stargz)
	x.reg.Stop()
	root := x.p.Mount(x.tag, "--timeout", patience.String())
	name := filepath.Join(root, "unfetched")
	start := time.Now()
	got, err := os.ReadFile(name)
	took := time.Since(start)
	if !errors.Is(err, syscall.EIO) || len(got) > 0 {
		t.Errorf("reading what was not fetched: %d bytes, %v; want EIO", len(got), err)
	}
	if took > retryBudget || took < patience/2 {
		t.Errorf("the read failed after %v, at most %v and not before %v", took, retryBudget, patience/2)
	}
	t.Logf("EIO after %v", took)
	x.reads(t, root)

	host := x.reg.Host()
	if status := x.p.PS(); len(status) != 1 || !strings.Contains(status[0].LastError, host) {
		t.Errorf("peel ps does not name %s: %+v", host, status)
	}
	if out := x.p.Must("ps").Stdout; !strings.Contains(out, root) {
		t.Errorf("peel ps does not show the mount:\n%s", out)
	}
	if log := x.p.Logs(); !strings.Contains(log, host) {
		t.Errorf("the log does not name %s:\n%s", host, log)
	}

	x.reg.Start()
	back := func() bool {
		got, err = os.ReadFile(name)
		return err == nil
	}
	if !x.p.Until(recovery, back) || !bytes.Equal(got, unfetched) {
		t.Errorf("with the registry back: %d bytes, %v", len(got), err)
	}
}

func TestNothingCached(t *testing.T) {
	t.Parallel()
	x := prepare(t, testkit.Stargz)
	never := x.p.Beside()
	if r := never.Run("mount", "--pull", "never", x.tag, never.Dir()); r.Code != testkit.NotFound || !strings.Contains(r.Stderr, "off/line:v1") {
		t.Errorf("--pull never of an unknown image: exit code %d\n%s", r.Code, r.Stderr)
	}
	x.reg.Stop()
	r := never.Run("ls", x.tag)
	if r.Code != testkit.Network || !strings.Contains(r.Stderr, x.reg.Host()) {
		t.Errorf("a registry that is gone: exit code %d\n%s", r.Code, r.Stderr)
	}
}

// TestMovedTag: a tag stays what it was until --pull always.
func TestMovedTag(t *testing.T) {
	t.Parallel()
	x := prepare(t, testkit.Stargz)
	x.reg.Publish(t, "off/line", "v1", testkit.Encode(t, testkit.Stargz, testkit.File("new", []byte("new\n"))))
	if out := x.p.Must("ls", x.tag).Stdout; !strings.Contains(out, "fetched") {
		t.Errorf("the tag moved without being asked to:\n%s", out)
	}
	if out := x.p.Must("ls", "--pull", "always", x.tag).Stdout; strings.TrimSpace(out) != "new" {
		t.Errorf("--pull always shows:\n%s", out)
	}
	if out := x.p.Must("ls", x.digest).Stdout; !strings.Contains(out, "fetched") {
		t.Errorf("the digest means something else now:\n%s", out)
	}
}
