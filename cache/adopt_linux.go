package cache

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// copyRange has the file system copy n bytes of a file, or share them, and
// reports whether it did. What it did in part can be written over.
func copyRange(to *os.File, at int64, file *os.File, from, n int64) bool {
	for n > 0 {
		done, err := unix.CopyFileRange(int(file.Fd()), &from, int(to.Fd()), &at, int(n), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || done == 0 {
			return false
		}
		n -= int64(done)
	}
	return true
}
