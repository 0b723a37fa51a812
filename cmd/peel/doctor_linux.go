package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs"
)

// machine checks kernel and FUSE.
func (o *doctorOptions) machine() []finding {
	return []finding{checkKernel(release()), checkFUSE(), checkHelper(os.Geteuid()), checkAllowOther(os.Geteuid(), "/etc/fuse.conf")}
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// checkKernel looks for what versions brought: unprivileged FUSE mounts within
// user namespaces in 4.18, requests sent again to a new server in 6.9.
func checkKernel(release string) finding {
	const check = "kernel"
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fine(check, "unknown version %q", release).warn("peel is tested on Linux 6.1 and later")
	}
	newer := func(a, b int) bool { return major > a || major == a && minor >= b }
	switch {
	case !newer(4, 18):
		return fine(check, "Linux %s is too old", release).fail("use Linux 4.18 or later")
	case !newer(6, 9):
		return fine(check, "Linux %s", release).warn("with Linux 6.9 or later, mounts can survive their server")
	}
	return fine(check, "Linux %s", release)
}

// canMount says why this process cannot mount; nil if nothing speaks against.
func canMount() error {
	switch err := fs.CheckFUSE(); {
	case errors.Is(err, exec.ErrNotFound):
		return withRemedy(err, "install it: apt-get install fuse3, or the package of that name elsewhere")
	case errors.Is(err, os.ErrNotExist):
		return withRemedy(err, "load the kernel module: modprobe fuse; in a container, add --device /dev/fuse --cap-add SYS_ADMIN")
	case err != nil:
		return err
	}
	// fusermount3 opens it with its caller's rights, set-uid or not.
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		return withRemedy(fmt.Errorf("%w: %w", fs.ErrNoFUSE, err),
			"let this user open it: chmod 0666 /dev/fuse, or add the user to the group that owns it")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", fs.ErrNoFUSE, err)
	}
	if os.Geteuid() != 0 {
		return f.Close()
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err == nil && caps[0].Effective>>unix.CAP_SYS_ADMIN&1 == 0 {
		return errors.Join(withRemedy(fmt.Errorf("%w: root lacks CAP_SYS_ADMIN here", fs.ErrNoFUSE),
			"in a container, add --device /dev/fuse --cap-add SYS_ADMIN"), f.Close())
	}
	return f.Close()
}

func checkFUSE() finding {
	const check = "FUSE"
	if err := canMount(); err != nil {
		f := fine(check, "%v", err).fail("in a container, add --device /dev/fuse --cap-add SYS_ADMIN")
		if r := new(remedied); errors.As(err, &r) {
			f.Remedy = r.remedy
		}
		return f
	}
	return fine(check, "/dev/fuse can be opened")
}

func checkHelper(uid int) finding {
	const check = "fusermount3"
	path, err := exec.LookPath("fusermount3")
	switch {
	case err == nil:
		return fine(check, "%s", path)
	case uid == 0:
		return fine(check, "not installed; root does not need it")
	}
	return fine(check, "not installed").fail("apt-get install fuse3, or the package of that name elsewhere")
}

// checkAllowOther reads fuse.conf(5): one word a line, # begins a comment.
func checkAllowOther(uid int, conf string) finding {
	const check = "allow_other"
	if uid == 0 {
		return fine(check, "root needs no leave for --allow-other")
	}
	f, err := os.Open(conf)
	if err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(io.LimitReader(f, 1<<20)); lines.Scan(); {
			if strings.TrimSpace(lines.Text()) == "user_allow_other" {
				return fine(check, "%s has user_allow_other", conf)
			}
		}
	}
	return fine(check, "%s lacks user_allow_other", conf).warn("for mounts that other users may enter, add that line to it")
}

// lowDisk is how much free space is worth a warning, bytes.
const lowDisk = 1 << 30

// disk checks the file system that the cache lies on.
func (o *doctorOptions) disk(dir string) []finding {
	const check = "cache space"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return []finding{fine(check, "%v", err).warn("")}
	}
	free := int64(st.Bavail) * st.Bsize
	f := fine(check, "%s free on %s", humanSize(free), fsType(dir))
	switch kind := fsType(dir); {
	case free < lowDisk:
		f = f.warn("when it is full, nothing more is kept and no image can be mounted, though mounts go on; free some space or choose another folder with --cache")
	case kind == "tmpfs":
		f = f.warn("the cache takes memory and is lost when the machine restarts; choose a folder on a disk with --cache")
	case strings.HasPrefix(kind, "nfs"), kind == "cifs", kind == "9p", strings.HasPrefix(kind, "fuse"):
		f = f.warn("locks and mapped files may not work across machines; choose a folder on a local disk with --cache")
	}
	return []finding{f}
}

// fsType is the type of the file system that dir, without symlinks, lies on.
func fsType(dir string) string {
	if real, err := realPath(dir); err == nil {
		dir = real
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil || len(mounts) == 0 {
		return "an unknown file system"
	}
	nearest := mounts[0]
	for _, m := range mounts {
		if len(m.Mountpoint) >= len(nearest.Mountpoint) { // the later one covers the earlier
			nearest = m
		}
	}
	return nearest.FSType
}
