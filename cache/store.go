package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// readTries bounds how often Read looks again because an evictor was at work.
const readTries = 8

// Store is the open store of one layer. Its methods may be called concurrently;
// Close waits for those under way, and afterwards they report io/fs.ErrClosed.
type Store struct {
	key    digest.Digest
	size   int64 // of the address space, bytes
	spans  int
	data   *os.File
	bits   *os.File // the have file; holds a shared flock
	puts   putLock
	claims spanClaims

	mu   sync.RWMutex // guards have, which Close unmaps
	have *have        // nil when closed
}

// Has reports whether span can be read. It may be evicted a moment later.
func (s *Store) Has(span int) (ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var err error
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.have != nil && span >= 0 && span < s.spans && allSet(s.have.checked, span, span+1)
}

// Read fills p with the bytes at addr, all within the spans [first, first+n),
// and reports true; or reports false if one of them is not present. It
// allocates nothing.
func (s *Store) Read(p []byte, addr int64, first, n int) (ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.outside(first, n, addr, len(p)) || s.have == nil {
		return false, s.misuse(first, n, addr, len(p))
	}
	defer catchFault(debug.SetPanicOnFault(true), &err)
	for range readTries {
		generation := atomic.LoadUint64(&s.have.header.generation)
		if !allSet(s.have.checked, first, first+n) {
			return false, nil
		}
		if ok, err := s.fill(p, addr); !ok {
			return false, err
		}
		if atomic.LoadUint64(&s.have.header.generation) == generation {
			return true, nil
		}
	}
	return false, nil
}

// fill reads p from data, and reports false if the file ends before.
func (s *Store) fill(p []byte, addr int64) (bool, error) {
	if _, err := s.data.ReadAt(p, addr); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("cached layer %s: %w", s.key, err)
	}
	return true, nil
}

// Put stores a whole span of verified bytes, again if it is there already. The
// error is ErrFull if there is no space for it; the span is then as it was.
func (s *Store) Put(span int, addr int64, data []byte) error {
	return s.put(span, addr, len(data), func() error {
		_, err := s.data.WriteAt(data, addr)
		return err
	})
}

// put stores a span of n bytes that write writes.
func (s *Store) put(span int, addr int64, n int, write func() error) (err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.outside(span, 1, addr, n) || s.have == nil {
		return s.misuse(span, 1, addr, n)
	}
	defer func() { err = s.spanError(span, err) }()
	defer catchFault(debug.SetPanicOnFault(true), &err)
	if err := s.puts.lock(s.data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.puts.unlock(s.data)) }()
	if err := write(); err != nil {
		return fullIfSo(err)
	}
	if err := s.set(s.have.present, span); err != nil {
		return err
	}
	return s.set(s.have.checked, span)
}

// Recheck fills p with the bytes of a span that a reboot has put in doubt, and
// reports false if there are none. The caller verifies them.
func (s *Store) Recheck(span int, addr int64, p []byte) (ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.outside(span, 1, addr, len(p)) || s.have == nil {
		return false, s.misuse(span, 1, addr, len(p))
	}
	defer catchFault(debug.SetPanicOnFault(true), &err)
	if !allSet(s.have.present, span, span+1) {
		return false, nil
	}
	return s.fill(p, addr)
}

// Confirm makes a span present whose bytes Recheck returned and the caller
// verified, unless it was evicted meanwhile.
func (s *Store) Confirm(span int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.outside(span, 1, 0, 0) || s.have == nil {
		return
	}
	// If it fails the span stays in doubt, which harms nobody.
	_ = s.confirm(span)
}

func (s *Store) confirm(span int) (err error) {
	defer catchFault(debug.SetPanicOnFault(true), &err)
	if err := s.puts.lock(s.data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.puts.unlock(s.data)) }()
	if !allSet(s.have.present, span, span+1) {
		return nil
	}
	return s.set(s.have.checked, span)
}

// Present returns how many spans are stored, including those in doubt.
func (s *Store) Present() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.have == nil {
		return 0
	}
	var err error
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return count(s.have.present)
}

// Close lets go of the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have == nil {
		return nil
	}
	words := s.have.words
	s.have = nil
	return errors.Join(unmapWords(words), s.closeFiles(), s.claims.close())
}

func (s *Store) closeFiles() error {
	var errs []error
	for _, f := range []*os.File{s.data, s.bits} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *Store) outside(first, n int, addr int64, length int) bool {
	return first < 0 || n < 0 || first > s.spans-n || addr < 0 || addr > s.size-int64(length)
}

// misuse says why a call cannot be served.
func (s *Store) misuse(first, n int, addr int64, length int) error {
	if s.have == nil {
		return fmt.Errorf("cached layer %s: %w", s.key, fs.ErrClosed)
	}
	return fmt.Errorf("cached layer %s: %w: spans [%d, +%d) and bytes [%d, +%d) of %d spans and %d bytes",
		s.key, errdefs.ErrInvalidArgument, first, n, addr, length, s.spans, s.size)
}

func (s *Store) spanError(span int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cached layer %s: span %d: %w", s.key, span, err)
}

// catchFault is deferred around uses of the mapping. Touching a page faults if
// somebody cut the file, the disk cannot be read, or a copy-on-write file
// system is full; that must not end the process that serves the mount. old is
// what debug.SetPanicOnFault returned.
func catchFault(old bool, err *error) {
	debug.SetPanicOnFault(old)
	r := recover()
	if r == nil {
		return
	}
	fault, ok := r.(interface {
		error
		Addr() uintptr
	})
	if !ok {
		panic(r)
	}
	*err = fmt.Errorf("have file: %w", fault)
}
