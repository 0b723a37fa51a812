package cache

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lockRange locks n bytes at off exclusively, for the open file rather than the
// process, and reports false if another open file has locked one of them.
func lockRange(f *os.File, off, n int64) (bool, error) {
	err := rangeLock(f, unix.F_WRLCK, off, n)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

func unlockRange(f *os.File, off, n int64) error { return rangeLock(f, unix.F_UNLCK, off, n) }

func rangeLock(f *os.File, how int16, off, n int64) error {
	l := unix.Flock_t{Type: how, Whence: io.SeekStart, Start: off, Len: n}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fcntl", err)
		}
	}
}
