//go:build unix

package ocilayout

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// locked calls do while nobody else does so for the same folder. The lock is
// held for as long as a small file takes to be written; waiting for it does not
// look at a context.
func (l *Layout) locked(do func() error) error {
	dir, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer dir.Close() // which unlocks
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if err == nil {
			return do()
		}
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}
