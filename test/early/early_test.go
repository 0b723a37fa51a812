//go:build linux

package early

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

// patience bounds whatever must happen at some time.
const patience = 30 * time.Second

// An image of three layers, the lowest of which does not come whole before
// release is called.
type image struct {
	ref     string
	first   []byte // of the lowest layer, comes early
	release func()
	bottom  testkit.Layer
}

const bottomSize = 8 << 20 // bytes, of which half come at once

func newImage(t *testing.T, f testkit.Form, spoil func(reg *testkit.Registry, bottom testkit.Layer)) image {
	t.Helper()
	m := image{first: testkit.Noise(1, 300_000)}
	m.bottom = testkit.Encode(t, f,
		testkit.Dir("etc"), testkit.File("etc/first", m.first), testkit.File("etc/hidden", []byte("never")),
		testkit.File("etc/replaced", []byte("old")), testkit.Symlink("etc/link", "first"),
		testkit.Dir("gone"), testkit.File("gone/file", []byte("never")), testkit.File("big", testkit.Noise(2, bottomSize)),
		testkit.Hardlink("etc/second", "etc/first"), testkit.File("etc/last", []byte("last")))
	middle := testkit.Encode(t, f,
		testkit.Dir("etc").With(func(h *tar.Header) { h.Mode = 0o750 }), testkit.File("etc/middle", []byte("middle")),
		testkit.Whiteout("etc/hidden"), testkit.Whiteout("gone"))
	top := testkit.Encode(t, f, testkit.Dir("etc"), testkit.File("etc/top", []byte("top")).Xattr("user.a", "b"), testkit.File("etc/replaced", []byte("new")))
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "ear/ly", "v1", m.bottom, middle, top)
	if spoil != nil {
		spoil(reg, m.bottom)
	}
	proxy := testkit.NewProxy(t, reg.Host())
	hold := make(chan struct{})
	m.release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(m.release) // before the proxy ends
	proxy.Stalls(m.bottom.Desc.Digest.String(), bottomSize/2, hold)
	m.ref = proxy.Ref("ear/ly", "v1")
	return m
}

// later does something that has to wait, and returns how to get its result.
func later[T any](do func() (T, error)) (done func() bool, result func() (T, error)) {
	end := make(chan struct{})
	var v T
	var err error
	go func() {
		defer close(end)
		v, err = do()
	}()
	done = func() bool {
		select {
		case <-end:
			return true
		default:
			return false
		}
	}
	return done, func() (T, error) { <-end; return v, err }
}

func is(t *testing.T, root, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(root, name))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
	}
}

func inode(t *testing.T, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestShownInTime: what is known is shown, and the rest waits for the end.
func TestShownInTime(t *testing.T) {
	t.Parallel()
	for _, f := range []testkit.Form{testkit.Gzip, testkit.PlainTar, testkit.Zstd} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			m := newImage(t, f, nil)
			p := testkit.NewPeel(t)
			t.Cleanup(m.release)
			root := p.Mount(m.ref, "--early")

			is(t, root, "etc/top", []byte("top"))
			is(t, root, "etc/middle", []byte("middle"))
			is(t, root, "etc/replaced", []byte("new"))
			is(t, root, "etc/first", m.first)
			is(t, root, "etc/link", m.first)
			buf := make([]byte, 8)
			if n, err := unix.Lgetxattr(filepath.Join(root, "etc/top"), "user.a", buf); err != nil || string(buf[:n]) != "b" {
				t.Errorf("xattr: %q, %v", buf[:max(n, 0)], err)
			}
			if _, err := unix.Lgetxattr(filepath.Join(root, "etc/first"), "user.a", buf); !errors.Is(err, unix.ENODATA) {
				t.Errorf("xattr that is not there: %v", err)
			}
			ino := inode(t, filepath.Join(root, "etc/first"))

			type waiting struct {
				name   string
				done   func() bool
				result func() (string, error)
				want   string
			}
			var all []waiting
			wait := func(name, want string, do func(name string) (string, error)) {
				done, result := later(func() (string, error) { return do(filepath.Join(root, name)) })
				all = append(all, waiting{name, done, result, want})
			}
			read := func(name string) (string, error) {
				b, err := os.ReadFile(name)
				if errors.Is(err, os.ErrNotExist) {
					return "nothing", nil
				}
				return string(b), err
			}
			wait("etc/hidden", "nothing", read)
			wait("gone/file", "nothing", read)
			wait("etc/never", "nothing", read)
			wait("etc/last", "last", read)
			wait("etc/second", string(m.first), read)
			wait("etc", "7", func(name string) (string, error) {
				list, err := os.ReadDir(name)
				return fmt.Sprint(len(list)), err
			})
			is(t, root, "etc/top", []byte("top")) // those who wait are in nobody's way
			for _, w := range all {
				if w.done() {
					got, err := w.result()
					t.Errorf("%s did not wait: %q, %v", w.name, got, err)
				}
			}
			m.release()
			for _, w := range all {
				if got, err := w.result(); err != nil || got != w.want {
					t.Errorf("%s: %.40q, %v; want %.40q", w.name, got, err, w.want)
				}
			}
			if now := inode(t, filepath.Join(root, "etc/first")); now != ino {
				t.Errorf("the inode number of etc/first was %d and is %d", ino, now)
			}
			if a, b := inode(t, filepath.Join(root, "etc/first")), inode(t, filepath.Join(root, "etc/second")); a != b {
				t.Errorf("hard links have inodes %d and %d", a, b)
			}
			sameAsWithout(t, p, root, m.ref)
		})
	}
}

// sameAsWithout compares the mount with one that was not made early.
func sameAsWithout(t *testing.T, p *testkit.Peel, root, ref string) {
	t.Helper()
	got, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	want, err := testkit.List(p.Beside().Mount(ref))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range testkit.Differences(want, got, testkit.Exact) {
		t.Error(d)
	}
}

// TestWrongBytes: a layer that is not what the manifest says has been shown;
// from the moment that this is known, nothing is.
func TestWrongBytes(t *testing.T) {
	t.Parallel()
	m := newImage(t, testkit.PlainTar, func(reg *testkit.Registry, bottom testkit.Layer) {
		blob := bytes.Clone(bottom.Blob)
		blob[len(blob)-4<<10-bottomSize/4] ^= 1 // in the middle of the big file
		if err := os.WriteFile(reg.BlobFile(bottom.Desc), blob, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	p := testkit.NewPeel(t)
	t.Cleanup(m.release)
	root := p.Mount(m.ref, "--early")
	is(t, root, "etc/first", m.first)
	f, err := os.Open(filepath.Join(root, "etc/first"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.release()
	if !p.Until(patience, func() bool { return p.PS()[0].LastError != "" }) {
		t.Fatal("peel ps does not tell")
	}
	if told := p.PS()[0].LastError; !strings.Contains(told, m.bottom.Desc.Digest.String()) || !strings.Contains(told, "not trusted") {
		t.Errorf("peel ps says %q", told)
	}
	if logs := p.Logs(); !strings.Contains(logs, "verification failed") {
		t.Errorf("the log does not tell:\n%s", logs)
	}
	for _, name := range []string{"etc/first", "etc/top", "etc/never"} {
		if _, err := os.ReadFile(filepath.Join(root, name)); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.ReadDir(root); !errors.Is(err, syscall.EIO) {
		t.Errorf("list: %v", err)
	}
	// What the kernel had cached of it, it has forgotten.
	if !p.Until(patience, func() bool { _, err := f.ReadAt(make([]byte, 10), 0); return errors.Is(err, syscall.EIO) }) {
		t.Error("the open file can still be read")
	}
}

// TestNameTwice: the last of several entries of one name is the image's; whoever
// has another one open is told.
func TestNameTwice(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	reg := testkit.NewRegistry(t)
	l := testkit.Encode(t, testkit.Gzip, testkit.File("twice", []byte("first")), testkit.File("once", []byte("once")),
		testkit.File("big", testkit.Noise(1, size)), testkit.File("twice", []byte("second")))
	reg.Publish(t, "ear/ly", "twice", l)
	proxy := testkit.NewProxy(t, reg.Host())
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	proxy.Stalls("/blobs/"+l.Desc.Digest.String(), size/2, hold)
	p := testkit.NewPeel(t)
	t.Cleanup(release)
	root := p.Mount(proxy.Ref("ear/ly", "twice"), "--early")
	is(t, root, "twice", []byte("first"))
	is(t, root, "once", []byte("once"))
	f, err := os.Open(filepath.Join(root, "twice"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	release()
	if _, err := os.ReadDir(root); err != nil {
		t.Fatal(err)
	}
	is(t, root, "twice", []byte("second"))
	is(t, root, "once", []byte("once"))
	if !p.Until(patience, func() bool { _, err := f.ReadAt(make([]byte, 5), 0); return errors.Is(err, syscall.EIO) }) {
		t.Error("what the image has not got can still be read")
	}
	if logs := p.Logs(); !strings.Contains(logs, "/twice") || strings.Contains(logs, "/once") {
		t.Errorf("the log does not tell:\n%s", logs)
	}
}

// TestReadersMeanwhile reads everything from several places at once while all
// of it is on its way.
func TestReadersMeanwhile(t *testing.T) {
	t.Parallel()
	const layers, files, size = 4, 150, 20_000
	reg := testkit.NewRegistry(t)
	var all []testkit.Entry
	var encoded []testkit.Layer
	for l := range layers {
		entries := []testkit.Entry{testkit.Dir("usr"), testkit.Dir("usr/lib").Xattr("user.a", "b")}
		for i := range files {
			// Each layer replaces one of ten files of the layer below.
			n := l*files + i - i%10/9*files
			e := testkit.File(fmt.Sprintf("usr/lib/%d", max(n, i)), testkit.Noise(uint64(l*files+i), size+i))
			entries, all = append(entries, e), append(all, e)
		}
		encoded = append(encoded, testkit.Encode(t, testkit.Forms()[l%4], entries...))
	}
	want := make(map[string][]byte)
	for _, e := range all {
		want[e.Name] = e.Data
	}
	reg.Publish(t, "ear/ly", "many", encoded...)
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.SetLink(testkit.Link{Delay: 5 * time.Millisecond, BytesPerSecond: layers * files * size})
	p := testkit.NewPeel(t)
	root := p.Mount(proxy.Ref("ear/ly", "many"), "--early")
	var readers sync.WaitGroup
	for r := range 8 {
		readers.Go(func() {
			for i := range all {
				name := all[(i+r*len(all)/8)%len(all)].Name
				is(t, root, name, want[name])
			}
		})
	}
	readers.Wait()
	sameAsWithout(t, p, root, proxy.Ref("ear/ly", "many"))
}

// TestLeft: a mount that is left before its image has come leaves nothing.
func TestLeft(t *testing.T) {
	t.Parallel()
	t.Run("unmounted", func(t *testing.T) {
		t.Parallel()
		m := newImage(t, testkit.Gzip, nil)
		p := testkit.NewPeel(t)
		root := p.Mount(m.ref, "--early")
		is(t, root, "etc/top", []byte("top"))
		p.Umount(root)
		m.after(t, p)
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		m := newImage(t, testkit.Gzip, nil)
		p := testkit.NewPeel(t)
		root := p.Dir()
		cmd := p.Command(t.Context(), "mount", "--early", "--foreground", m.ref, root)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !p.Until(patience, func() bool { return len(p.PS()) == 1 }) {
			t.Fatal("not mounted")
		}
		is(t, root, "etc/top", []byte("top"))
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		m.after(t, p)
	})
	t.Run("whoever waits", func(t *testing.T) {
		t.Parallel()
		m := newImage(t, testkit.Gzip, nil)
		p := testkit.NewPeel(t)
		t.Cleanup(m.release)
		root := p.Mount(m.ref, "--early")
		ls := exec.CommandContext(t.Context(), "ls", root)
		if err := ls.Start(); err != nil {
			t.Fatal(err)
		}
		is(t, root, "etc/top", []byte("top"))
		if err := ls.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := ls.Wait(); err == nil {
			t.Error("ls has listed what nobody can know yet")
		}
		m.release()
		if list, err := os.ReadDir(root); err != nil || len(list) != 2 {
			t.Errorf("%d names, %v; want etc and big", len(list), err)
		}
	})
}

// after expects that nobody serves any more, and that the next mount is whole.
func (m image) after(t *testing.T, p *testkit.Peel) {
	t.Helper()
	if !p.Until(patience, func() bool { return len(p.Processes()) == 0 }) {
		t.Errorf("still running: %v", p.Processes())
	}
	m.release()
	is(t, p.Mount(m.ref), "etc/first", m.first)
}

// TestSecondMount: an image whose layers are all known is mounted as always.
func TestSecondMount(t *testing.T) {
	t.Parallel()
	m := newImage(t, testkit.Gzip, nil)
	m.release()
	p := testkit.NewPeel(t)
	p.Umount(p.Mount(m.ref))
	root := p.Mount(m.ref, "--early")
	if n := inode(t, root); n != 1 {
		t.Errorf("the root has inode %d", n)
	}
	if n := inode(t, filepath.Join(root, "etc/first")); n > 100 {
		t.Errorf("etc/first has inode %d, as if it had been shown early", n)
	}
	is(t, root, "etc/first", m.first)
}
