//go:build linux

package user

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"

	"github.com/peelfs/peel/internal/testkit"
)

const account = "peel-e2e"

// ordinary returns the ids of a user that has a name, as fusermount3 wants.
func ordinary(t *testing.T) (uid, gid uint32) {
	t.Helper()
	u, err := user.Lookup(account)
	if err != nil {
		out, err := exec.CommandContext(t.Context(), "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", account).CombinedOutput()
		if err != nil {
			t.Fatalf("useradd (as root): %v\n%s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "userdel", account).CombinedOutput(); err != nil {
				t.Errorf("userdel: %v\n%s", err, out)
			}
		})
		if u, err = user.Lookup(account); err != nil {
			t.Fatal(err)
		}
	}
	ids := make([]uint32, 2)
	for i, s := range []string{u.Uid, u.Gid} {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = uint32(n)
	}
	return ids[0], ids[1]
}

// openFuse lets users open /dev/fuse, as udev does wherever it runs.
func openFuse(t *testing.T) {
	t.Helper()
	const dev, mode = "/dev/fuse", 0o666
	fi, err := os.Stat(dev)
	if err != nil {
		t.Fatalf("FUSE is needed: %v", err)
	}
	if fi.Mode().Perm()&mode == mode {
		return
	}
	if err := os.Chmod(dev, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod(dev, fi.Mode().Perm()); err != nil {
			t.Error(err)
		}
	})
}

// as runs a program as the user and returns what it says.
func as(t *testing.T, uid, gid uint32, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestOrdinaryUser(t *testing.T) {
	uid, gid := ordinary(t)
	openFuse(t)
	content := testkit.Noise(5, 200_000)
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "us/er", "v1", testkit.Encode(t, testkit.Stargz, testkit.Dir("etc"),
		testkit.File("etc/data", content), testkit.Symlink("etc/link", "data")))
	ref := reg.Ref("us/er", "v1")
	p := testkit.NewPeelAs(t, uid, gid)

	if out := p.Must("cat", ref+":/etc/link").Stdout; out != string(content) {
		t.Errorf("cat: %d bytes", len(out))
	}
	root := p.Mount(ref)
	if out, err := as(t, uid, gid, "cat", filepath.Join(root, "etc/link")); err != nil || out != string(content) {
		t.Errorf("reading as the user: %d bytes, %v", len(out), err)
	}
	if _, err := os.ReadDir(root); !errors.Is(err, syscall.EACCES) {
		t.Errorf("another user, though it is root: %v, want EACCES", err)
	}
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(root))
	if err != nil || len(infos) != 1 {
		t.Fatalf("%d mounts on %s, %v", len(infos), root, err)
	}
	for _, option := range []string{"nosuid", "nodev", "ro"} {
		if !strings.Contains(","+infos[0].Options+",", ","+option+",") {
			t.Errorf("mounted %s, without %s", infos[0].Options, option)
		}
	}
	status := p.PS()
	if len(status) != 1 || status[0].Mountpoint != root || status[0].BytesPresent == 0 {
		t.Errorf("peel ps: %+v", status)
	}
	p.Umount(root)
	p.CheckLeftovers()
}

func TestOrdinaryUsersLimits(t *testing.T) {
	uid, gid := ordinary(t)
	openFuse(t)
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "us/er", "v1", testkit.Encode(t, testkit.Stargz, testkit.File("data", []byte("x"))))
	ref := reg.Ref("us/er", "v1")
	p := testkit.NewPeelAs(t, uid, gid)

	foreign := t.TempDir()
	if err := os.Chmod(filepath.Dir(foreign), 0o755); err != nil {
		t.Fatal(err)
	}
	if r := p.Run("mount", ref, foreign); r.Code == testkit.OK || !strings.Contains(r.Stderr, foreign) {
		t.Errorf("mounting on root's directory: exit code %d\n%s", r.Code, r.Stderr)
	}
	p.CheckLeftovers()

	conf, err := os.ReadFile("/etc/fuse.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	allowed := bytes.Contains(append([]byte("\n"), conf...), []byte("\nuser_allow_other"))
	r := p.Run("mount", "--allow-other", ref, p.Dir())
	switch {
	case allowed && r.Code != testkit.OK:
		t.Errorf("--allow-other, which /etc/fuse.conf permits: exit code %d\n%s", r.Code, r.Stderr)
	case !allowed && (r.Code == testkit.OK || !strings.Contains(r.Stderr, "user_allow_other")):
		t.Errorf("--allow-other, which /etc/fuse.conf does not permit: exit code %d\n%s", r.Code, r.Stderr)
	}
}
