package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	// touchEvery is how exactly the last use of a reference is known: closer
	// uses cost no write.
	touchEvery = time.Minute
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
	r, err := readRef(c.refPath(name))
	if err == nil && r.Name != name {
		err = fmt.Errorf("damaged: %w", fs.ErrNotExist)
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("cached reference %s: %w", name, err)
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

// RefInfo is a reference that was resolved.
type RefInfo struct {
	Name     string
	Digest   digest.Digest // what it resolved to
	Resolved time.Time     // when
	Used     time.Time     // when it was last set or touched
}

// Refs returns all references, sorted by name. Damaged ones are left out.
func (c *Cache) Refs() ([]RefInfo, error) {
	dir := filepath.Join(c.dir, "refs")
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cached references: %w", err)
	}
	var out []RefInfo
	for _, f := range files {
		fi, err := f.Info()
		if err != nil {
			continue // removed or replaced just now
		}
		r, err := readRef(filepath.Join(dir, f.Name()))
		if err != nil || refFile(r.Name) != f.Name() {
			continue
		}
		out = append(out, RefInfo{Name: r.Name, Digest: r.Digest, Resolved: r.Time, Used: fi.ModTime()})
	}
	slices.SortFunc(out, func(a, b RefInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// RemoveRef forgets what name resolved to. It is no error if it never was.
func (c *Cache) RemoveRef(name string) error {
	if err := removeFile(c.refPath(name)); err != nil {
		return fmt.Errorf("cached reference %s: %w", name, err)
	}
	return nil
}

// TouchRef notes that name is used now. It is no error if it was never resolved.
func (c *Cache) TouchRef(name string) error {
	path := c.refPath(name)
	fi, err := os.Stat(path)
	now := time.Now()
	if err == nil && now.Sub(fi.ModTime()) > touchEvery {
		err = os.Chtimes(path, now, now)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cached reference %s: %w", name, err)
	}
	return nil
}

func readRef(path string) (r ref, err error) {
	data, err := readBounded(path, maxRef)
	if err != nil {
		return r, err
	}
	if json.Unmarshal(data, &r) != nil || r.Digest.Validate() != nil {
		return r, fmt.Errorf("damaged: %w", fs.ErrNotExist)
	}
	return r, nil
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
