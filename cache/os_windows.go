package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/windows"
)

// lockOffset is where files are locked: far behind their content, because a
// locked range of Windows cannot be read by others.
const lockOffset = 1 << 30 // in units of 4 GiB

// fullIfSo makes an error that says "no space" an ErrFull.
func fullIfSo(err error) error {
	if errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// writable leaves the answer to the first file that is created.
func writable(string) error { return nil }

// tryLock locks f exclusively, unless somebody else has it locked.
func tryLock(f *os.File) (bool, error) {
	err := lockFile(f, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

func lockShared(f *os.File) error { return lockFile(f, 0) }

func lockFile(f *os.File, how uint32) error {
	at := windows.Overlapped{OffsetHigh: lockOffset}
	return os.NewSyscallError("LockFileEx", windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, &at))
}

func unlock(f *os.File) error {
	at := windows.Overlapped{OffsetHigh: lockOffset}
	return os.NewSyscallError("UnlockFileEx", windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, &at))
}

// idOf knows no name for a file; bits are hints after every opening.
func idOf(os.FileInfo) fileID { return fileID{} }

// diskBytes returns how many bytes of disk a file takes.
func diskBytes(fi os.FileInfo) int64 { return fi.Size() }

// mapWords returns the content of f as memory of this process only.
func mapWords(f *os.File, n int) ([]uint64, error) {
	words := make([]uint64, n)
	_, err := io.ReadFull(io.NewSectionReader(f, 0, int64(8*n)), asBytes(words))
	return words, err
}

func unmapWords([]uint64) error { return nil }

// writeThrough writes word i to the file. Of two processes that write the same
// word one may lose its bit, and will fetch the span again.
func (s *Store) writeThrough(i int) error {
	word := [1]uint64{atomic.LoadUint64(&s.have.words[i])}
	_, err := s.bits.WriteAt(asBytes(word[:]), int64(8*i))
	return fullIfSo(err)
}

// replaceFile puts data at path. An open file cannot be renamed over, and
// nobody has it mapped, so it is written in place.
func replaceFile(path string, data []byte) error {
	return fullIfSo(os.WriteFile(path, data, 0o600))
}

// moveOpen closes f, since an open file cannot be renamed, and renames it.
func moveOpen(f *os.File, path string) error {
	return errors.Join(f.Close(), os.Rename(f.Name(), path))
}
