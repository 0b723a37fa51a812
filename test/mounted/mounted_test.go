//go:build linux

package mounted

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/internal/testkit"
)

// mount publishes one layer and mounts it.
func mount(t *testing.T, f testkit.Form, entries ...testkit.Entry) (*testkit.Peel, string) {
	t.Helper()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "moun/ted", "v1", testkit.Encode(t, f, entries...))
	p := testkit.NewPeel(t)
	return p, p.Mount(reg.Ref("moun/ted", "v1"))
}

func TestStatfs(t *testing.T) {
	t.Parallel()
	_, root := mount(t, testkit.Stargz, testkit.Dir("d"), testkit.File("d/a", testkit.Noise(1, 1_000_000)), testkit.File("d/b", testkit.Noise(2, 500_000)))
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		t.Fatal(err)
	}
	const inodes = 4 // the root, d, a, b
	if size := st.Blocks * uint64(st.Bsize); size < 1_500_000 || size > 1_600_000 {
		t.Errorf("size %d (%d blocks of %d), the files have 1500000 bytes", size, st.Blocks, st.Bsize)
	}
	if st.Files != inodes || st.Ffree != 0 || st.Bfree != 0 || st.Bavail != 0 || st.Namelen != 255 {
		t.Errorf("statfs: %+v", st)
	}
	out, err := exec.CommandContext(t.Context(), "df", "--output=target,iused", root).CombinedOutput()
	if err != nil || !strings.Contains(string(out), root) {
		t.Errorf("df: %v\n%s", err, out)
	}
}

func TestXattrs(t *testing.T) {
	t.Parallel()
	const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	big := strings.Repeat("v", 20_000)
	for _, form := range []testkit.Form{testkit.Gzip, testkit.Stargz, testkit.ZstdChunked} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			_, root := mount(t, form,
				testkit.File("ping", []byte("#!")).Xattr("security.capability", netRaw),
				testkit.File("notes", []byte("x")).Xattr("user.note", "hello").Xattr("user.big", big).Xattr("user.empty", ""),
				testkit.Dir("dir").Xattr("user.dir", "yes"), testkit.Symlink("link", "nowhere"))
			out, err := exec.CommandContext(t.Context(), "getcap", filepath.Join(root, "ping")).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "cap_net_raw") {
				t.Errorf("getcap: %v: %s", err, out)
			}
			buf := make([]byte, 1<<16)
			get := func(name, attr string) string {
				n, err := unix.Lgetxattr(filepath.Join(root, name), attr, buf)
				if err != nil {
					return err.Error()
				}
				return string(buf[:n])
			}
			for _, tc := range []struct{ name, attr, want string }{
				{"notes", "user.note", "hello"},
				{"notes", "user.big", big},
				{"notes", "user.empty", ""},
				{"dir", "user.dir", "yes"},
				{"notes", "user.none", unix.ENODATA.Error()},
				{"link", "security.capability", unix.ENODATA.Error()},
			} {
				if got := get(tc.name, tc.attr); got != tc.want {
					t.Errorf("%s of %s: %.40q, want %.40q", tc.attr, tc.name, got, tc.want)
				}
			}
			if _, err := unix.Lgetxattr(filepath.Join(root, "notes"), "user.big", buf[:10]); !errors.Is(err, unix.ERANGE) {
				t.Errorf("a buffer that is too small: %v", err)
			}
		})
	}
}

// TestNames: a name is bytes, and duplicates end with the last.
func TestNames(t *testing.T) {
	t.Parallel()
	names := []string{"\xff\xfe not UTF-8", "new\nline", "tab\there", "日本語", strings.Repeat("x", 255), "-rf", "a\\b", "trailing "}
	entries := []testkit.Entry{testkit.File("twice", []byte("first")), testkit.File("twice", []byte("second"))}
	for _, n := range names {
		entries = append(entries, testkit.File(n, []byte(n)))
	}
	_, root := mount(t, testkit.Gzip, entries...)
	for _, n := range names {
		if got, err := os.ReadFile(filepath.Join(root, n)); err != nil || string(got) != n {
			t.Errorf("%q: %q, %v", n, got, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(root, "twice")); err != nil || string(got) != "second" {
		t.Errorf("a path that is there twice: %q, %v", got, err)
	}
	list, err := os.ReadDir(root)
	if err != nil || len(list) != len(names)+1 {
		t.Errorf("%d names, %v; want %d", len(list), err, len(names)+1)
	}
	if _, err := os.Lstat(filepath.Join(root, strings.Repeat("y", 256))); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a name of 256 bytes: %v", err)
	}
}

// TestSparse lets GNU tar write sparse files in each of its ways.
func TestSparse(t *testing.T) {
	t.Parallel()
	const size = 40 << 20
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for i, off := range []int64{0, 1 << 20, 20<<20 + 12345, size - 4096} {
		if _, err := f.WriteAt(testkit.Noise(uint64(i), 4096), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := testkit.Sum(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range [][]string{{"--format=gnu"}, {"--format=pax", "--sparse-version=0.0"}, {"--format=pax", "--sparse-version=0.1"}, {"--format=pax", "--sparse-version=1.0"}} {
		t.Run(strings.Join(format, " "), func(t *testing.T) {
			args := append(slices.Clone(format), "--sparse", "-C", dir, "-cf", "-", "sparse")
			archive, err := exec.CommandContext(t.Context(), "tar", args...).Output()
			if err != nil || len(archive) > 1<<20 {
				t.Fatalf("tar: %d bytes, %v", len(archive), err)
			}
			l, err := testkit.Gzip.Encode(archive)
			if err != nil {
				t.Fatal(err)
			}
			reg := testkit.NewRegistry(t)
			reg.Publish(t, "moun/ted", "sparse", l)
			p := testkit.NewPeel(t)
			root := p.Mount(reg.Ref("moun/ted", "sparse"))
			name := filepath.Join(root, "sparse")
			if fi, err := os.Stat(name); err != nil || fi.Size() != size {
				t.Errorf("stat: %v, %v", fi, err)
			}
			if got, err := testkit.Sum(name); err != nil || got != want {
				t.Errorf("content has digest %s (%v), want %s", got, err, want)
			}
		})
	}
}

// TestBigDirectory seeks and rereads a directory of many names.
func TestBigDirectory(t *testing.T) {
	t.Parallel()
	const n = 5000
	entries := []testkit.Entry{testkit.Dir("big")}
	for i := range n {
		entries = append(entries, testkit.File("big/"+strconv.Itoa(i)+strings.Repeat("-", i%100), nil))
	}
	_, root := mount(t, testkit.Stargz, entries...)
	d, err := os.Open(filepath.Join(root, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	first, err := d.Readdirnames(n / 3)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := d.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	again, err := d.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	if both := slices.Concat(first, rest); len(both) != n || !slices.Equal(both, again) {
		t.Errorf("%d and %d names, then %d", len(first), len(rest), len(again))
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	_, root := mount(t, testkit.Gzip, testkit.Dir("dir"), testkit.File("file", []byte("x")))
	name := filepath.Join(root, "file")
	for what, err := range map[string]error{
		"create":  os.WriteFile(filepath.Join(root, "new"), nil, 0o600),
		"write":   os.WriteFile(name, []byte("y"), 0o600),
		"mkdir":   os.Mkdir(filepath.Join(root, "sub"), 0o700),
		"remove":  os.Remove(name),
		"rename":  os.Rename(name, name+"2"),
		"chmod":   os.Chmod(name, 0o777),
		"link":    os.Link(name, name+"3"),
		"symlink": os.Symlink("x", filepath.Join(root, "s")),
		"xattr":   unix.Setxattr(name, "user.a", []byte("b"), 0),
		"utimes":  os.Chtimes(name, testkit.Epoch, testkit.Epoch),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", what, err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a name that is not there: %v", err)
	}
}

// TestDevices: root's mounts let devices and set-user-id work, as containers
// need.
func TestDevices(t *testing.T) {
	t.Parallel()
	zero := testkit.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "zero", Mode: 0o666, ModTime: testkit.Epoch, Devmajor: 1, Devminor: 5}}
	id, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "moun/ted", "dev", testkit.Encode(t, testkit.Stargz, zero,
		testkit.File("id", id).With(func(h *tar.Header) { h.Mode = 0o4755 })))
	root := testkit.NewPeel(t).Mount(reg.Ref("moun/ted", "dev"), "--allow-other")
	f, err := os.Open(filepath.Join(root, "zero"))
	if err != nil {
		t.Fatal(err)
	}
	buf := []byte("not zero")
	if _, err := f.Read(buf); err != nil || !bytes.Equal(buf, make([]byte, len(buf))) {
		t.Errorf("device: %q, %v", buf, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	// By way of a shell: the registry is in this process, which stands still
	// until execve(2) has read the program.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `exec "$0" -u`, filepath.Join(root, "id"))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for dir := filepath.Dir(root); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "0" {
		t.Errorf("set-user-id program: %v: %s", err, out)
	}
}

// TestPrograms runs an image's own programs in a chroot on the mount.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, s := range testkit.Debian(t) {
		if s.Name != "terminal" {
			continue
		}
		for _, form := range []testkit.Form{testkit.StargzMin, testkit.ZstdChunked} {
			reg := testkit.NewRegistry(t)
			reg.Push(t, s.Layout, string(form), s.Name)
			p := testkit.NewPeel(t)
			root := p.Mount(reg.Ref(s.Name, string(form)))
			out, err := exec.CommandContext(t.Context(), "chroot", root, "/bin/dash", "-c", "/bin/dash -c 'echo $((6*7))'").CombinedOutput()
			if err != nil || string(out) != "42\n" {
				t.Errorf("%s: %v: %s", form, err, out)
			}
		}
	}
}
