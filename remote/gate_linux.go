package remote

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	exclusive = unix.F_WRLCK
	shared    = unix.F_RDLCK
)

// Locks of open file descriptions (fcntl(2)), which the kernel drops with the
// process, however it ends.

func byteLock(at int64, kind int16) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: at, Len: 1}
}

// lockByte reports false if another process has the lock.
func lockByte(f *os.File, at int64, kind int16) (bool, error) {
	err := control(f, unix.F_OFD_SETLK, byteLock(at, kind))
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

func unlockByte(f *os.File, at int64) error {
	return control(f, unix.F_OFD_SETLK, byteLock(at, unix.F_UNLCK))
}

// lockedElsewhere reports whether another process has any lock on the byte.
func lockedElsewhere(f *os.File, at int64) (bool, error) {
	l := byteLock(at, unix.F_WRLCK)
	err := control(f, unix.F_OFD_GETLK, l)
	return l.Type != unix.F_UNLCK, err
}

func control(f *os.File, cmd int, l *unix.Flock_t) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	outer := c.Control(func(fd uintptr) { err = unix.FcntlFlock(fd, cmd, l) })
	return errors.Join(outer, err)
}
