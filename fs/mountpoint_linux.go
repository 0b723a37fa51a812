package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// CheckMountpoint says whether dir can be mounted on: an existing directory
// on which nothing is mounted.
func CheckMountpoint(dir string) error {
	// First: stat(2) of a dead mount succeeds for as long as the kernel
	// remembers the root's attributes.
	mounts, err := MountsOn(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	if len(mounts) > 0 {
		if top := mounts[len(mounts)-1]; top.Ours() && !Answers(dir) {
			return fmt.Errorf("%s: %w: %w", dir, ErrMountpoint, ErrDeadMount)
		}
		return fmt.Errorf("%s: %w: %w", dir, ErrMountpoint, ErrMounted)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s: %w: not a directory", dir, ErrMountpoint)
	}
	return nil
}

// MountsOn returns what is mounted on dir, the topmost last. It looks at
// mountinfo alone, so that dead and slow mounts are no obstacle.
func MountsOn(dir string) ([]Mounted, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	} else if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(parent, filepath.Base(abs)) // of a dead mount, only this can be looked at
	}
	infos, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != abs, false })
	if err != nil {
		return nil, err
	}
	var on []Mounted
	for _, m := range infos {
		on = append(on, Mounted{Type: m.FSType, Source: m.Source, Device: fmt.Sprintf("%d:%d", m.Major, m.Minor)})
	}
	return on, nil
}

// Answers reports whether a mount of ours on dir has a server. A user whom it
// does not let in gets no answer either (fuse_statfs in fs/fuse/inode.c).
func Answers(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Files > 0 // the root at least
}

// Unmount removes the mount on dir. What still has files open there is told
// by the error (EBUSY). It takes no context: unmounting is what is done last,
// when every context has ended.
func Unmount(dir string) error { return unmount(dir, 0, "-u") }

// detach removes the mount on dir even from under those who use it, who get
// errors from then on.
func detach(dir string) error {
	return unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH, "-uz")
}

// unmount calls umount2(2), or fusermount3 for who may not.
func unmount(dir string, flags int, option string) error {
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|flags)
	if errors.Is(err, unix.EPERM) {
		helper, herr := fusermount()
		if herr != nil {
			return herr
		}
		cmd := exec.CommandContext(context.Background(), helper, option, "--", dir)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = helperError(out, err)
		}
	}
	if err != nil {
		return fmt.Errorf("umount %s: %w", dir, err)
	}
	return nil
}

// topmost returns the mount on dir that a look-up ends in; none if ok is false.
func topmost(dir string) (m Mounted, ok bool, err error) {
	mounts, err := MountsOn(dir)
	if err != nil || len(mounts) == 0 {
		return m, false, err
	}
	return mounts[len(mounts)-1], true, nil
}

// detachDead removes a mount of ours on dir that nobody serves.
func detachDead(dir string) error {
	if top, ok, err := topmost(dir); err != nil || !ok || !top.Ours() || Answers(dir) {
		return err
	}
	return detach(dir)
}
