//go:build !unix

package flat

import (
	"fmt"
	"os"
)

// Mapping is a file read into memory, where mmap(2) is not to be had.
type Mapping struct{ data []byte }

// Map reads the file at path.
func Map(path string) (*Mapping, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%s: %w: 0 bytes", path, ErrCorrupt)
	}
	return &Mapping{data}, nil
}

// Bytes returns the file's bytes.
func (m *Mapping) Bytes() []byte { return m.data }

// Close lets go of the bytes.
func (m *Mapping) Close() error {
	m.data = nil
	return nil
}
