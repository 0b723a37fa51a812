//go:build linux

package sharing

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

const files = 20

func content(i int) []byte { return testkit.Noise(uint64(100+i), 150_000) }

func entries() []testkit.Entry {
	var out []testkit.Entry
	for i := range files {
		out = append(out, testkit.File("file-"+strconv.Itoa(i), content(i)))
	}
	return out
}

// readAll checks every file below root.
func readAll(t *testing.T, root string) {
	t.Helper()
	for i := range files {
		if got, err := os.ReadFile(filepath.Join(root, "file-"+strconv.Itoa(i))); err != nil || !bytes.Equal(got, content(i)) {
			t.Errorf("file %d below %s: %d bytes, %v", i, root, len(got), err)
		}
	}
}

// TestAtOnce starts several mounts and other commands of one image together.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	for _, form := range []testkit.Form{testkit.Gzip, testkit.Stargz, testkit.ZstdChunked} {
		t.Run(string(form), func(t *testing.T) {
			l := testkit.Encode(t, form, entries()...)
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "sha/red", "v1", l)
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.SetLink(testkit.Link{Delay: 50 * time.Millisecond, BytesPerSecond: 4_000_000})
			p := testkit.NewPeel(t)
			ref := proxy.Ref("sha/red", "v1")
			roots := []string{p.Dir(), p.Dir(), p.Dir(), p.Dir()}
			var all sync.WaitGroup
			for _, root := range roots {
				all.Go(func() {
					if r := p.Run("mount", ref, root); r.Code != testkit.OK {
						t.Errorf("mount: exit code %d\n%s", r.Code, r.Stderr)
						return
					}
					readAll(t, root)
				})
			}
			all.Go(func() {
				if r := p.Run("cat", ref+":/file-3"); r.Code != testkit.OK || r.Stdout != string(content(3)) {
					t.Errorf("cat: exit code %d, %d bytes\n%s", r.Code, len(r.Stdout), r.Stderr)
				}
			})
			all.Wait()
			if n, most := testkit.Bytes(proxy.Log()), l.Desc.Size*int64(len(roots)+1)/2; form == testkit.Gzip && n > most {
				t.Errorf("%d bytes fetched of a layer of %d: streamed more than once", n, l.Desc.Size)
			}
			if n := len(p.PS()); n != len(roots) {
				t.Errorf("peel ps lists %d mounts, want %d", n, len(roots))
			}
			p.Must("umount", "--all")
			if n := len(p.PS()); n != 0 {
				t.Errorf("peel ps lists %d mounts after umount --all", n)
			}
			reg.Stop()
			root := p.Mount(ref)
			readAll(t, root)
		})
	}
}

// TestTwoCaches: neither sees or touches the other's mounts.
func TestTwoCaches(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "sha/red", "v1", testkit.Encode(t, testkit.Stargz, entries()...))
	ref := reg.Ref("sha/red", "v1")
	one := testkit.NewPeel(t)
	two := one.Beside()
	first, second := one.Mount(ref), two.Mount(ref)
	for _, x := range []struct {
		p    *testkit.Peel
		root string
	}{{one, first}, {two, second}} {
		if got := x.p.PS(); len(got) != 1 || got[0].Mountpoint != x.root || got[0].Reference == "" || got[0].Digest == "" {
			t.Errorf("peel ps: %+v, want only %s", got, x.root)
		}
		if pid := x.p.ServerPID(x.root); unix.Kill(pid, 0) != nil {
			t.Errorf("server_pid %d does not run", pid)
		}
	}
	two.Must("umount", "--all")
	readAll(t, first)
	if got := one.PS(); len(got) != 1 {
		t.Errorf("the other cache's umount --all left %+v", got)
	}
	flag := one.Must("--cache", two.Cache, "ps", "--json").Stdout
	if flag != "[]\n" {
		t.Errorf("--cache is not stronger than PEEL_CACHE: %q", flag)
	}
}

// TestKilledServer: what a dead server leaves can be taken away, and its cache
// still serves.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	for _, form := range []testkit.Form{testkit.Stargz, testkit.ZstdChunked} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "sha/red", "v1", testkit.Encode(t, form, entries()...))
			proxy := testkit.NewProxy(t, reg.Host())
			proxy.SetLink(testkit.Link{BytesPerSecond: 3_000_000})
			p := testkit.NewPeel(t)
			ref := proxy.Ref("sha/red", "v1")
			root := p.Mount(ref)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var reader sync.WaitGroup
			reader.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					got, err := os.ReadFile(filepath.Join(root, "file-"+strconv.Itoa(i%files)))
					if err == nil && !bytes.Equal(got, content(i%files)) {
						t.Errorf("file %d is wrong", i%files)
					}
				}
			})
			before := p.PS()[0]
			p.Until(5*time.Second, func() bool { return p.PS()[0].BytesPresent > before.BytesPresent })
			if err := unix.Kill(before.ServerPID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			p.Until(5*time.Second, func() bool { return unix.Kill(before.ServerPID, 0) != nil })
			cancel()
			reader.Wait()
			p.Umount(root)
			if got := p.PS(); len(got) != 0 {
				t.Errorf("peel ps still lists %+v", got)
			}
			root = p.Mount(ref)
			readAll(t, root)
		})
	}
}
