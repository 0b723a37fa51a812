package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	fuseDevice = "/dev/fuse"
	// maxRequest is the largest read the kernel may send, bytes: 256 pages,
	// the most that Linux allows without raising fs.fuse.max_pages_limit.
	maxRequest = 1 << 20
)

// CheckFUSE says whether this process can hope to mount. The error has the
// class exec.ErrNotFound if it is the helper that is missing.
func CheckFUSE() error {
	if _, err := os.Stat(fuseDevice); err != nil {
		return fmt.Errorf("%w: %w", ErrNoFUSE, err)
	}
	if os.Geteuid() == 0 {
		return nil
	}
	_, err := fusermount()
	return err
}

// mountFUSE opens /dev/fuse and mounts it on dir. The descriptor answers for
// the file system until it is closed or unmounted.
func mountFUSE(ctx context.Context, dir string, o MountOptions) (fd int, err error) {
	if os.Geteuid() == 0 {
		fd, err = mountDirect(dir, o)
		if !errors.Is(err, unix.EPERM) {
			return fd, err
		}
	}
	return mountHelper(ctx, dir, o)
}

// mountDirect mounts by mount(2). Devices and set-uid programs of the image
// work, as they do in any container's root.
func mountDirect(dir string, o MountOptions) (int, error) {
	fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: open %s: %w", ErrNoFUSE, fuseDevice, err)
	}
	opts := append(o.options(),
		"fd="+strconv.Itoa(fd), "rootmode=40000",
		"user_id="+strconv.Itoa(os.Geteuid()), "group_id="+strconv.Itoa(os.Getegid()))
	if err := unix.Mount(o.Source, dir, "fuse."+fsType, unix.MS_RDONLY, strings.Join(opts, ",")); err != nil {
		return -1, errors.Join(fmt.Errorf("mount on %s: %w", dir, err), unix.Close(fd))
	}
	return fd, nil
}

// mountHelper mounts through the set-uid program fusermount3. If that fails,
// or is killed, after it has mounted, nobody serves the mount: it is removed.
func mountHelper(ctx context.Context, dir string, o MountOptions) (int, error) {
	fd, err := askHelper(ctx, dir, o)
	if err != nil {
		err = errors.Join(err, detachDead(dir)) //nolint:contextcheck // it takes none
	}
	return fd, err
}

// askHelper has fusermount3 open the device and mount it, and takes the
// descriptor that it passes back over a socket.
func askHelper(ctx context.Context, dir string, o MountOptions) (int, error) {
	helper, err := fusermount()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	defer theirs.Close()

	opts := append(o.options(), "ro", "nosuid", "nodev", "subtype="+fsType, "fsname="+escapeOption(o.Source))
	cmd := exec.CommandContext(ctx, helper, "-o", strings.Join(opts, ","), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return -1, helperError(out, err)
	}
	return receiveFD(pair[0])
}

// helperError makes one line of what fusermount3 printed in the C locale.
func helperError(out []byte, err error) error {
	msg := strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), "; ")
	if msg == "" {
		msg = err.Error()
	}
	switch {
	case strings.Contains(msg, "user_allow_other"):
		return fmt.Errorf("%s; add the line user_allow_other to /etc/fuse.conf", msg)
	case strings.Contains(msg, fuseDevice):
		return fmt.Errorf("%w: %s", ErrNoFUSE, msg)
	case strings.Contains(msg, unix.EBUSY.Error()), strings.Contains(msg, "Device or resource busy"):
		return fmt.Errorf("%w: %s", unix.EBUSY, msg)
	case strings.Contains(msg, "mountpoint"), strings.Contains(msg, "mount point"):
		return fmt.Errorf("%w: %s", ErrMountpoint, msg)
	}
	return errors.New(msg)
}

// receiveFD takes the one descriptor that was sent over the socket.
func receiveFD(sock int) (int, error) {
	buf, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("%w: fusermount3 sent no descriptor", ErrNoFUSE)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%w: fusermount3 sent %d descriptors", ErrNoFUSE, len(fds))
	}
	return fds[0], nil
}

func fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: neither root nor fusermount3: %w", ErrNoFUSE, exec.ErrNotFound)
}

// options are the ones that mount(2) and fusermount3 both take.
func (o MountOptions) options() []string {
	opts := []string{"default_permissions", "max_read=" + strconv.Itoa(maxRequest)}
	if o.AllowOther {
		opts = append(opts, "allow_other")
	}
	return opts
}

// escapeOption protects what libfuse's option parser would split.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(s)
}

// raiseReadAhead lets the kernel read ahead as much as one request can carry;
// its own default is 128 KiB. Only root may; for others it is not an error.
func raiseReadAhead(dev uint64) error {
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev))
	err := os.WriteFile(path, []byte(strconv.Itoa(maxRequest>>10)), 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}
