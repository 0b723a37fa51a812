//go:build unix

package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// stamp is what tells that a file has been changed. What changes ctime alone
// does not: a file may get another name, or lose its last one.
type stamp struct {
	size, seconds, nanoseconds int64
	inode                      uint64
}

// stampOf allocates nothing, as it is part of every read.
func stampOf(f *os.File, fd uintptr) (stamp, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstat(int(fd), &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return stamp{}, os.NewSyscallError("fstat "+f.Name(), err)
		}
		sec, nsec := st.Mtim.Unix()
		return stamp{st.Size, sec, nsec, uint64(st.Ino)}, nil //nolint:unconvert // 32 bits on some systems
	}
}
