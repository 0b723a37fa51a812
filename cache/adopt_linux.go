package cache

import (
	"os"

	"golang.org/x/sys/unix"
)

// shareRange makes the n bytes from at on those of file from its offset from on,
// by sharing their blocks (ioctl_ficlonerange(2)), and reports whether it did.
// Where blocks are not shared, copy_file_range(2) would copy, which costs three
// times as much as writing what is in memory.
func shareRange(to *os.File, at int64, file *os.File, from, n int64) bool {
	return unix.IoctlFileCloneRange(int(to.Fd()), &unix.FileCloneRange{
		Src_fd: int64(file.Fd()), Src_offset: uint64(from), Src_length: uint64(n), Dest_offset: uint64(at),
	}) == nil
}
