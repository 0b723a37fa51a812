//go:build unix

package cache

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fullIfSo makes an error that says "no space" an ErrFull.
func fullIfSo(err error) error {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
	return err
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("not writable: %w", err)
	}
	return nil
}

// tryLock locks f exclusively, unless somebody else has it locked.
func tryLock(f *os.File) (bool, error) {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func lockShared(f *os.File) error { return flock(f, unix.LOCK_SH) }

func unlock(f *os.File) error { return flock(f, unix.LOCK_UN) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}

// idOf names the file that fi describes.
func idOf(fi os.FileInfo) fileID {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{dev: uint64(st.Dev), ino: st.Ino}
}

// diskBytes returns how many bytes of disk a file takes.
func diskBytes(fi os.FileInfo) int64 {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fi.Size()
	}
	return int64(st.Blocks) * 512
}

// mapWords returns the content of f as memory shared by all who map it.
func mapWords(f *os.File, n int) ([]uint64, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, 8*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

func unmapWords(words []uint64) error {
	return os.NewSyscallError("munmap", unix.Munmap(asBytes(words)))
}

// writeThrough does nothing: the words are the file.
func (s *Store) writeThrough(int) error { return nil }

// replaceFile puts data at path, at once and as a new file. The caller holds
// the lock on the folder.
func replaceFile(path string, data []byte) error {
	if err := writeNew(path, data); err != nil {
		return err
	}
	return os.Rename(path+newSuffix, path)
}

// moveOpen renames f, which stays open.
func moveOpen(f *os.File, path string) error { return os.Rename(f.Name(), path) }
