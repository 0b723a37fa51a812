package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// pattern is tree.Data whose every byte tells its address.
type pattern struct {
	hold    chan struct{} // reads wait until it is closed
	waiting atomic.Int32
	calls   atomic.Int32
	broken  error
}

func (p *pattern) ReadAt(ctx context.Context, _ int, b []byte, addr int64) (int, error) {
	p.calls.Add(1)
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	select {
	case <-p.hold:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if p.broken != nil {
		return 0, p.broken
	}
	for i := range b {
		b[i] = byte(addr + int64(i))
	}
	return len(b), nil
}

func want(addr, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(addr + int64(i))
	}
	return b
}

const (
	dirs, filesEach = 3, 5000
	fileSize        = 3 << 20
)

// sample has big directories, a big file, a device, a symlink and xattrs.
func sample(t *testing.T) *tree.Tree {
	t.Helper()
	b := layer.NewBuilder()
	add := func(h layer.Header) {
		t.Helper()
		if err := b.Add(&h); err != nil {
			t.Fatal(err)
		}
	}
	addr := int64(0)
	file := func(name string, size int64) {
		add(layer.Header{Name: name, Mode: unix.S_IFREG | 0o644, Size: size, Addr: addr, MtimeSec: -5, MtimeNsec: 7, Xattrs: map[string]string{"user.a": "1"}})
		addr += size
	}
	file("big", fileSize)
	for d := range dirs {
		for f := range filesEach {
			file(fmt.Sprintf("d%d/f%05d-\xff", d, f), 3)
		}
	}
	add(layer.Header{Name: "link", Mode: unix.S_IFLNK | 0o777, Link: "d0/x"})
	add(layer.Header{Name: "dev", Mode: unix.S_IFCHR | 0o600, RdevMajor: 300, RdevMinor: 70000})
	info := layer.InfoInput{Blob: digest.FromString("blob"), BlobSize: addr, AddrSize: addr, Format: layer.FormatTar, Trust: layer.Proved}
	x, err := b.Index(info, layer.Cut{Spans: []layer.Span{{Len: addr, CLen: addr, Chunks: flat.Range{Count: 1}}}, Chunks: []layer.Chunk{{Len: uint32(addr)}}})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := tree.Merge([]*layer.Index{x})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// serve mounts the sample on a directory by the same calls as Mount.
func serve(t *testing.T, data *pattern) (dir string, failures *atomic.Int32) {
	t.Helper()
	if data.hold == nil {
		data.hold = make(chan struct{})
		close(data.hold)
	}
	dir = t.TempDir()
	fd, err := mountFUSE(t.Context(), dir, MountOptions{Source: "sample, of the test"})
	if err != nil {
		t.Fatal(err)
	}
	failures = new(atomic.Int32)
	s := &Server{log: logrus.NewEntry(logrus.New())}
	c := newConn(fd, fuse.NewProtocolServer(newTable(sample(t), data, func(uint32, error) { failures.Add(1) }), s.protocol()))
	c.start()
	if err := settle(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(Unmount(dir), c.wait(), unix.Close(fd)); err != nil {
			t.Error(err)
		}
	})
	return dir, failures
}

func TestMountShowsTheTable(t *testing.T) {
	t.Parallel()
	dir, _ := serve(t, &pattern{})

	got, err := os.ReadFile(filepath.Join(dir, "big"))
	if err != nil || !bytes.Equal(got, want(0, fileSize)) {
		t.Errorf("big: %d bytes, %v", len(got), err)
	}
	for d := range dirs {
		entries, err := os.ReadDir(filepath.Join(dir, fmt.Sprint("d", d)))
		if err != nil || len(entries) != filesEach {
			t.Fatalf("d%d: %d entries, %v", d, len(entries), err)
		}
		for f, e := range entries {
			if e.Name() != fmt.Sprintf("f%05d-\xff", f) {
				t.Fatalf("entry %d is %q", f, e.Name())
			}
		}
	}
	name := filepath.Join(dir, "d1", "f00002-\xff")
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want(fileSize+3*(filesEach+2), 3)) {
		t.Errorf("%q: %v, %v", name, got, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil || st.Mtim.Sec != -5 || st.Mtim.Nsec != 7 || st.Nlink != 1 || st.Mode != unix.S_IFREG|0o644 {
		t.Errorf("lstat: %+v, %v", st, err)
	}
	if err := unix.Lstat(filepath.Join(dir, "dev"), &st); err != nil || unix.Major(st.Rdev) != 300 || unix.Minor(st.Rdev) != 70000 {
		t.Errorf("dev: %d:%d, %v", unix.Major(st.Rdev), unix.Minor(st.Rdev), err)
	}
	if l, err := os.Readlink(filepath.Join(dir, "link")); err != nil || l != "d0/x" {
		t.Errorf("link: %q, %v", l, err)
	}
	v := make([]byte, 8)
	if n, err := unix.Lgetxattr(name, "user.a", v); err != nil || string(v[:max(n, 0)]) != "1" {
		t.Errorf("user.a: %q, %v", v, err)
	}
	if n, err := unix.Llistxattr(name, v); err != nil || string(v[:max(n, 0)]) != "user.a\x00" {
		t.Errorf("list of xattrs: %q, %v", v, err)
	}
	if _, err := unix.Lgetxattr(name, "user.b", v); !errors.Is(err, unix.ENODATA) {
		t.Errorf("user.b: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("creating a file: %v", err)
	}
	var sfs unix.Statfs_t
	if err := unix.Statfs(dir, &sfs); err != nil || sfs.Files != dirs*(filesEach+1)+4 || int64(sfs.Blocks)*sfs.Bsize < fileSize {
		t.Errorf("statfs: %+v, %v", sfs, err)
	}
}

// What was read once is the kernel's: no open asks again, and the second read
// of a file or a directory costs no request.
func TestWarmReadsCostNoRequest(t *testing.T) {
	t.Parallel()
	data := &pattern{}
	dir, _ := serve(t, data)
	name := filepath.Join(dir, "big")
	read := func() {
		t.Helper()
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want(0, fileSize)) {
			t.Fatalf("big: %d bytes, %v", len(got), err)
		}
	}
	read()
	before := data.calls.Load()
	read()
	if after := data.calls.Load(); after != before {
		t.Errorf("the second read of a file cost %d requests", after-before)
	}
}

// Readers that wait for data must not keep others from the file system, nor
// each other.
func TestWaitingReadersBlockNobody(t *testing.T) {
	t.Parallel()
	data := &pattern{hold: make(chan struct{})}
	dir, _ := serve(t, data)
	const readers = 100
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			name := filepath.Join(dir, fmt.Sprintf("d0/f%05d-\xff", i))
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want(fileSize+3*int64(i), 3)) {
				t.Errorf("%q: %v, %v", name, got, err)
			}
		})
	}
	for data.waiting.Load() < readers {
		if _, err := os.ReadDir(filepath.Join(dir, "d2")); err != nil {
			t.Fatal(err)
		}
	}
	close(data.hold)
	wg.Wait()
}

// A reader that is interrupted ends, and so does its request. It reads with
// O_DIRECT: the kernel's read-ahead belongs to nobody who could interrupt it.
//
// It is not parallel: starting a program closes this process's files in the new
// one before this one goes on, and files of the other tests' mounts, which this
// process serves, would be among them.
func TestInterruptedReader(t *testing.T) {
	data := &pattern{hold: make(chan struct{})}
	dir, failures := serve(t, data)
	cmd := exec.CommandContext(t.Context(), "dd", "if="+filepath.Join(dir, "big"), "iflag=direct", "of=/dev/null", "bs=4096", "count=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for data.waiting.Load() == 0 {
		runtime.Gosched()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("dd survived a kill")
	}
	for deadline := time.Now().Add(10 * time.Second); data.waiting.Load() > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the read of a dead process still waits")
		}
	}
	if n := failures.Load(); n != 0 {
		t.Errorf("%d failures were reported for an interrupted read", n)
	}
}

func TestFailedReadIsEIO(t *testing.T) {
	t.Parallel()
	dir, failures := serve(t, &pattern{broken: errors.New("no such luck")})
	if _, err := os.ReadFile(filepath.Join(dir, "big")); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if failures.Load() == 0 {
		t.Error("the failure was not reported")
	}
}

func TestMountpointChecks(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mounted, _ := serve(t, &pattern{})
	for name, dir := range map[string]string{"a file": file, "nothing": file + "x", "a mount": mounted} {
		if err := CheckMountpoint(dir); !errors.Is(err, ErrMountpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckMountpoint(t.TempDir()); err != nil {
		t.Error(err)
	}
}
