//go:build unix

package flat

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mapping is a file mapped read-only. Its bytes stay valid after the file is
// renamed over or unlinked, until Close.
type Mapping struct{ data []byte }

// Map maps the file at path.
func Map(path string) (*Mapping, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() == 0 || fi.Size() != int64(int(fi.Size())) {
		return nil, fmt.Errorf("%s: %w: %d bytes", path, ErrCorrupt, fi.Size())
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap %s: %w", path, err)
	}
	return &Mapping{data}, nil
}

// Bytes returns the mapped bytes; they fault after Close.
func (m *Mapping) Bytes() []byte { return m.data }

// Close unmaps the file. No slice over it may be used afterwards.
func (m *Mapping) Close() error {
	data := m.data
	m.data = nil
	if data == nil {
		return nil
	}
	return unix.Munmap(data)
}
