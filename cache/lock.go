package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Bounds of the wait between two attempts at a lock.
const (
	minWait = time.Millisecond
	maxWait = 100 * time.Millisecond
)

// acquire opens the file at path, creating it and its folder, and locks it
// exclusively; closing the file unlocks it. It waits, until ctx is done, while
// somebody else holds the lock.
func acquire(ctx context.Context, path string) (f *os.File, err error) {
	err = repeat(ctx, maxWait, func() (bool, error) {
		f, err = attempt(path)
		return f != nil, err
	})
	return f, err
}

// repeat tries until that reports true or fails, or ctx is done, with pauses of
// at most longest: the locks of a file know no context.
func repeat(ctx context.Context, longest time.Duration, try func() (bool, error)) error {
	wait := minWait
	for {
		if ok, err := try(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// attempt is one attempt at a lock; it returns nil if somebody else holds it, or
// deleted the folder just now.
func attempt(path string) (*os.File, error) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fullIfSo(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fullIfSo(err)
	}
	locked, err := tryLock(f)
	if locked {
		locked, err = isAt(f, path)
	}
	if locked && err == nil {
		return f, nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return nil, errors.Join(err, f.Close())
}

// isAt reports whether path still names f. If the folder was deleted, f is not
// the file that others will lock.
func isAt(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	want, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, want), err
}

// putLock keeps evictors of other processes away from data while spans are
// put. The lock belongs to the open file, so its users within this process are
// counted.
type putLock struct {
	mu   sync.Mutex // guards puts, and the lock itself
	puts int
}

func (l *putLock) lock(data *os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.puts == 0 {
		if err := lockShared(data); err != nil {
			return err
		}
	}
	l.puts++
	return nil
}

func (l *putLock) unlock(data *os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.puts--
	if l.puts > 0 {
		return nil
	}
	return unlock(data)
}
