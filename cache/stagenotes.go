package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
)

// maxNotes bounds the notes on a stage, in bytes. What would go beyond is not
// kept, so that a pass goes on at the last note that fitted.
const maxNotes = 256 << 20

// Notes returns the notes that an interrupted pass left, and how many bytes it
// wrote. The last note may be incomplete. After a crash of the machine, notes
// and bytes may be damaged.
func (g *Stage) Notes() (data []byte, size int64, err error) {
	if g.f == nil || g.committed {
		return nil, 0, stageError(g.key, os.ErrClosed)
	}
	data = make([]byte, min(g.notes.n, maxNotes))
	if len(data) > 0 {
		if _, err := g.notes.f.ReadAt(data, 0); err != nil {
			return nil, 0, stageError(g.key, err)
		}
	}
	return data, g.n.Load(), nil
}

// Note keeps a note on the bytes written so far. The error is ErrFull if there
// is no space for it.
func (g *Stage) Note(note []byte) error {
	err := g.begin()
	if err == nil {
		// The notes must not speak of more than the file is long.
		err = setLength(g.f, g.n.Load())
	}
	if err == nil {
		err = g.notes.add(note)
	}
	if err != nil {
		return stageError(g.key, g.orFull(err))
	}
	return nil
}

// Rewind replaces the notes and forgets what was written beyond size; the next
// Write goes there.
func (g *Stage) Rewind(size int64, notes []byte) error {
	if err := g.rewind(size, notes); err != nil {
		return stageError(g.key, g.orFull(err))
	}
	return nil
}

// rewind cuts the stage before the notes: killed on the way, it leaves notes
// that speak of more than is there, and their reader sees that.
func (g *Stage) rewind(size int64, notes []byte) error {
	if g.f == nil || g.committed {
		return os.ErrClosed
	}
	if n := g.n.Load(); size < 0 || size > n || len(notes) > maxNotes {
		return fmt.Errorf("%w: back to %d with notes of %d bytes; %d bytes written", errdefs.ErrInvalidArgument, size, len(notes), n)
	}
	g.begun = false // should this fail, only the beginning is certain
	if err := g.cut(size); err != nil {
		return err
	}
	if err := g.notes.replace(notes); err != nil {
		return err
	}
	g.begun = true
	return nil
}

func (g *Stage) cut(size int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := setLength(g.f, size); err != nil {
		return err
	}
	g.n.Store(size)
	return nil
}

// notes is the file of the notes on a stage, which is there if they are.
type notes struct {
	path string
	f    *os.File // nil if there are none, or closed
	n    int64    // bytes
}

// open opens what an interrupted pass left.
func (s *notes) open() error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.f = f
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	s.n = fi.Size()
	return nil
}

// add appends a note in one write.
func (s *notes) add(note []byte) (err error) {
	if s.n+int64(len(note)) > maxNotes {
		return nil
	}
	if s.f == nil {
		if s.f, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return err
		}
	}
	if _, err := s.f.WriteAt(note, s.n); err != nil {
		// A note that follows half a note would not be found.
		return errors.Join(err, s.f.Truncate(s.n))
	}
	s.n += int64(len(note))
	return nil
}

// replace writes in place: as a rule data is the beginning of what is there, so
// that this needs no space, and a process killed on the way does no harm.
func (s *notes) replace(data []byte) error {
	if len(data) == 0 {
		return s.remove()
	}
	if s.f != nil {
		s.n = min(s.n, int64(len(data)))
		if err := s.f.Truncate(s.n); err != nil {
			return err
		}
	}
	s.n = 0
	return s.add(data)
}

// remove removes the notes, if there are any.
func (s *notes) remove() error {
	s.n = 0
	return errors.Join(s.close(), removeFile(s.path))
}

func (s *notes) close() error {
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f = nil
	return f.Close()
}
