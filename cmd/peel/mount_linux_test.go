package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/internal/testkit"
)

// patience bounds the wait for processes to do what they should.
const patience = 20 * time.Second

// program is this test binary run as peel, so that what serves a mount is
// another process. Tests that use it are not parallel: they share PEEL_BIN.
func program(t *testing.T) *testkit.Peel {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PEEL_BIN", exe)
	p := testkit.NewPeel(t)
	p.Setenv(asProgram, "1")
	return p
}

func TestMountTellsAndUmountWaits(t *testing.T) {
	reg, ref := library(t)
	p := program(t)
	dir := p.Dir()
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var m mounted
	if r := p.Must("mount", "--json", ref, link); json.Unmarshal([]byte(r.Stdout), &m) != nil {
		t.Fatalf("not JSON: %+v", r)
	}
	if m.Mountpoint != dir || m.Reference != ref || m.ServerPID == 0 || m.Digest == "" || m.Local || m.LogFile == "" {
		t.Errorf("%+v", m)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "etc/motd")); err != nil || string(data) != "above\n" {
		t.Errorf("%q %v", data, err)
	}
	if r := p.Run("mount", ref, dir); r.Code != 1 || !strings.Contains(r.Stderr, "mounted there already") {
		t.Errorf("mounted twice: %+v", r)
	}
	p.Must("umount", link)
	if left := p.Processes(); len(left) > 0 {
		t.Errorf("servers after umount: %v", left)
	}
	reg.Stop()
	if r := p.Must("mount", "--json", ref, dir); json.Unmarshal([]byte(r.Stdout), &m) != nil || !m.Local {
		t.Errorf("second mount: %+v", r)
	}
	p.Must("umount", "--all")
}

func TestUmountOfABusyMount(t *testing.T) {
	_, ref := library(t)
	p := program(t)
	dir := p.Mount(ref)
	f, err := os.Open(filepath.Join(dir, "etc/motd"))
	if err != nil {
		t.Fatal(err)
	}
	if r := p.Run("umount", dir); r.Code != 1 || !strings.Contains(r.Stderr, "fuser -vm "+dir) {
		t.Errorf("umount of a busy mount: %+v", r)
	}
	server := p.ServerPID(dir)
	if err := unix.Kill(server, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !p.Until(patience, func() bool { return strings.Contains(p.Logs(), "still serving") }) {
		t.Errorf("the server does not say that it stays:\n%s", p.Logs())
	}
	if err := f.Close(); err != nil || p.ServerPID(dir) != server {
		t.Errorf("a signal ended the server of a busy mount: %v", err)
	}
	if err := unix.Kill(server, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !p.Until(patience, func() bool { return len(p.Mounts()) == 0 && len(p.Processes()) == 0 }) {
		t.Errorf("a signal does not end the mount that nobody uses: %v %v", p.Mounts(), p.Processes())
	}
}

func TestUmountOfADeadMount(t *testing.T) {
	_, ref := library(t)
	p := program(t)
	dir := p.Mount(ref)
	if err := unix.Kill(p.ServerPID(dir), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Until(patience, func() bool { return strings.Contains(p.Must("ps").Stdout, "(dead)") }) {
		t.Errorf("peel ps: %s", p.Must("ps").Stdout)
	}
	p.Must("umount", dir)
	if got := p.PS(); len(got) != 0 {
		t.Errorf("still listed: %+v", got)
	}
}

// TestServerIsTiedToItsMount kills peel mount while its server waits for the
// registry.
func TestServerIsTiedToItsMount(t *testing.T) {
	reg, ref := library(t)
	proxy := testkit.NewProxy(t, reg.Host())
	proxy.SetLink(testkit.Link{Delay: time.Second})
	p := program(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := p.Command(ctx, "mount", strings.Replace(ref, reg.Host(), proxy.Host(), 1), p.Dir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !p.Until(patience, func() bool { return len(p.Processes()) == 2 }) {
		t.Errorf("no server: %v", p.Processes())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("peel mount succeeded although it was killed")
	}
	if !p.Until(patience, func() bool { return len(p.Processes()) == 0 }) {
		t.Errorf("the server lives on: %v", p.Processes())
	}
	p.CheckLeftovers()
}

// killServer leaves p's mount on dir dead.
func killServer(t *testing.T, p *testkit.Peel, dir string) {
	t.Helper()
	server := p.ServerPID(dir)
	if err := unix.Kill(server, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Until(patience, func() bool { return strings.Contains(p.Must("ps").Stdout, "(dead)") }) {
		t.Fatalf("the server lives on: %s", p.Must("ps").Stdout)
	}
}

// peel umount removes what its record is of, and nothing that came after it.
func TestUmountLeavesOthersAlone(t *testing.T) {
	_, ref := library(t)
	tmpfs := func(t *testing.T, dir string) {
		t.Helper()
		if err := unix.Mount("precious", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Errorf("the tmpfs has gone: %v", err)
			}
		})
	}
	t.Run("the mount of another cache", func(t *testing.T) {
		p := program(t)
		q, dir := p.Beside(), p.Mount(ref)
		killServer(t, p, dir)
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		q.Must("mount", ref, dir) // most likely with the device number of the dead one
		p.Must("umount", dir)
		if len(p.PS()) != 0 || !fs.Answers(dir) {
			t.Errorf("records %v, mounted: %v", p.PS(), fs.Answers(dir))
		}
		q.Must("umount", dir)
	})
	t.Run("a tmpfs after a dead mount", func(t *testing.T) {
		p := program(t)
		dir := p.Mount(ref)
		killServer(t, p, dir)
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		tmpfs(t, dir)
		p.Must("umount", "--all")
		if len(p.PS()) != 0 {
			t.Errorf("records %v", p.PS())
		}
	})
	t.Run("a tmpfs over a live mount", func(t *testing.T) {
		p := program(t)
		dir := p.Mount(ref)
		tmpfs(t, dir)
		if r := p.Run("umount", dir); r.Code != 1 || !strings.Contains(r.Stderr, "precious (tmpfs) is mounted over it") {
			t.Errorf("%+v", r)
		}
		p.ServerPID(dir)
	})
}

// An ordinary user gets rid of the record of a mount that was removed by other
// means, and of a dead mount, and hears what keeps one busy.
func TestUmountByAUser(t *testing.T) {
	_, ref := library(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PEEL_BIN", exe)
	fi, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/dev/fuse", 0o666); err != nil { // as udev does wherever it runs
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod("/dev/fuse", fi.Mode().Perm()); err != nil {
			t.Error(err)
		}
	})
	const nobody = 65534
	p := testkit.NewPeelAs(t, nobody, nobody)
	p.Setenv(asProgram, "1")

	dir := p.Mount(ref)
	sleeper := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", `cd "$0" && echo in && exec cat`, dir)
	in, err := sleeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := sleeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if r := p.Run("umount", dir); r.Code != 1 || !strings.Contains(r.Stderr, "fuser -vm "+dir) {
		t.Errorf("umount of a busy mount: %+v", r)
	}
	if err := errors.Join(in.Close(), sleeper.Wait()); err != nil {
		t.Fatal(err)
	}

	killServer(t, p, dir)
	if r := p.Run("mount", ref, dir); r.Code != 1 || !strings.Contains(r.Stderr, "remove it: peel umount "+dir) {
		t.Errorf("mount on a dead mount: %+v", r)
	}
	p.Must("umount", dir)
	if err := unix.Mount("", dir, "tmpfs", 0, ""); err != nil {
		t.Fatalf("the dead mount is still there: %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}

	p.Must("mount", ref, dir)
	killServer(t, p, dir)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	p.Must("umount", "--all")
	if left := p.PS(); len(left) != 0 {
		t.Errorf("records %v", left)
	}
	if r := p.Run("mount", ref, "/"); r.Code != 1 || strings.Contains(r.Stderr, "FUSE is not available") {
		t.Errorf("mount on another's directory: %+v", r)
	}
	if r := p.Run("mount", ref, "/usr"); r.Code != 1 || strings.Contains(r.Stderr, "FUSE is not available") {
		t.Errorf("mount on another's directory: %+v", r)
	}
}

func TestBrokenRecord(t *testing.T) {
	_, ref := library(t)
	p := program(t)
	dir := p.Mount(ref)
	broken := filepath.Join(p.Cache, "mounts", "x")
	if err := errors.Join(os.Mkdir(broken, 0o700), os.WriteFile(filepath.Join(broken, "record.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if r := p.Must("ps"); !strings.Contains(r.Stdout, dir) || !strings.Contains(r.Stdout, broken) {
		t.Errorf("peel ps: %s", r.Stdout)
	}
	if r := p.Run("umount", "--all"); r.Code != 1 || !strings.Contains(r.Stderr, broken) {
		t.Errorf("peel umount --all: %+v", r)
	}
	if mounts := p.Mounts(); len(mounts) != 0 {
		t.Errorf("still mounted: %v", mounts)
	}
	p.Must("mount", ref, dir)
	p.Must("umount", dir)
	if err := os.RemoveAll(broken); err != nil { // as peel ps says
		t.Error(err)
	}
}
