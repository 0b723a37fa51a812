package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// maxRef bounds a ref file, in bytes.
	maxRef = 64 << 10
	// maxRefName is the longest escaped name used as it is; file systems end
	// at 255 bytes.
	maxRefName = 200
)

// ref is the content of a file below refs.
type ref struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Time   time.Time     `json:"time"`
}

// Ref returns what name resolved to and when. The error is io/fs.ErrNotExist if
// it never was.
func (c *Cache) Ref(name string) (digest.Digest, time.Time, error) {
	data, err := readBounded(c.refPath(name), maxRef)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("cached reference %s: %w", name, err)
	}
	var r ref
	if json.Unmarshal(data, &r) != nil || r.Name != name || r.Digest.Validate() != nil {
		return "", time.Time{}, fmt.Errorf("cached reference %s: damaged: %w", name, fs.ErrNotExist)
	}
	return r.Digest, r.Time, nil
}

// SetRef remembers that name resolves to d now.
func (c *Cache) SetRef(name string, d digest.Digest) error {
	data, err := json.Marshal(ref{Name: name, Digest: d, Time: time.Now().UTC()})
	if err == nil {
		err = c.replace(c.refPath(name), data)
	}
	if err != nil {
		return fmt.Errorf("cached reference %s: %w", name, err)
	}
	return nil
}

func (c *Cache) refPath(name string) string {
	return filepath.Join(c.dir, "refs", refFile(name))
}

// refFile returns the file name of a reference, different for every reference
// even where the file system ignores case: bytes other than lower-case letters,
// digits, '-', '_' and inner '.' become %xx. What gets too long ends in '~' and
// the digest of the whole.
func refFile(name string) string {
	var b strings.Builder
	for i := range len(name) {
		ch := name[i]
		plain := 'a' <= ch && ch <= 'z' || '0' <= ch && ch <= '9' || ch == '-' || ch == '_' ||
			ch == '.' && i > 0 && i < len(name)-1
		if plain {
			b.WriteByte(ch)
		} else {
			fmt.Fprintf(&b, "%%%02x", ch)
		}
	}
	escaped := b.String()
	if escaped != "" && len(escaped) <= maxRefName {
		return escaped
	}
	sum := sha256.Sum256([]byte(name))
	return escaped[:min(len(escaped), maxRefName-2*len(sum))] + "~" + hex.EncodeToString(sum[:])
}
