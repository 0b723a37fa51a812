package cache

import (
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// ownFSType is the file system type of peel's mounts in /proc/self/mountinfo.
const ownFSType = "fuse.peel"

// refuseOwnMount reports an error if dir lies on a mount of peel's: serving the
// mount would wait for itself.
func refuseOwnMount(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	if fs.Type != unix.FUSE_SUPER_MAGIC {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return os.NewSyscallError("stat", err)
	}
	major, minor := int(unix.Major(st.Dev)), int(unix.Minor(st.Dev))
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(ownFSType))
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Major == major && m.Minor == minor {
			return fmt.Errorf("%s is itself a mount of peel", m.Mountpoint)
		}
	}
	return nil
}
