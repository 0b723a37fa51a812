package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/flat"
)

// maxDocument bounds what Read takes into memory, in bytes. Documents that may
// be longer are meant to be mapped.
const maxDocument = 256 << 20

// Read returns a document. The error is io/fs.ErrNotExist if there is none.
// The bytes may be damaged if the machine crashed after Write.
func (c *Cache) Read(kind string, key digest.Digest) ([]byte, error) {
	path, err := c.document(kind, key)
	if err != nil {
		return nil, docError(kind, key, err)
	}
	data, err := readBounded(path, maxDocument)
	if err != nil {
		return nil, docError(kind, key, err)
	}
	return data, nil
}

// Map returns a document mapped read-only; it stays as it is if the document is
// replaced or removed. The error is io/fs.ErrNotExist if there is none. The
// bytes may be damaged if the machine crashed after Write.
func (c *Cache) Map(kind string, key digest.Digest) (*flat.Mapping, error) {
	path, err := c.document(kind, key)
	if err != nil {
		return nil, docError(kind, key, err)
	}
	m, err := flat.Map(path)
	if err != nil {
		return nil, docError(kind, key, err)
	}
	return m, nil
}

// Write stores a document, replacing one that is there. Other processes see the
// old one or the new one, whole.
func (c *Cache) Write(kind string, key digest.Digest, data []byte) error {
	path, err := c.document(kind, key)
	if err == nil {
		err = c.replace(path, data)
	}
	if err != nil {
		return docError(kind, key, err)
	}
	return nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return data, err
}

// replace writes the file at path, whose folder it creates.
func (c *Cache) replace(path string, data []byte) (err error) {
	tmp := filepath.Join(c.dir, "tmp")
	if err := errors.Join(os.MkdirAll(tmp, 0o700), os.MkdirAll(filepath.Dir(path), 0o700)); err != nil {
		return fullIfSo(err)
	}
	f, err := os.CreateTemp(tmp, "*")
	if err != nil {
		return fullIfSo(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fullIfSo(err)
	}
	return fullIfSo(os.Rename(f.Name(), path))
}

func docError(kind string, key digest.Digest, err error) error {
	return fmt.Errorf("cached %s %s: %w", kind, key, err)
}
