package convert

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// tocEntry is an entry of the table of contents in containers/storage's
// dialect, which its reader compares field by field with the tar's headers.
type tocEntry struct {
	Type        string            `json:"type"`
	Name        string            `json:"name"`
	Linkname    string            `json:"linkName,omitempty"`
	Mode        int64             `json:"mode,omitempty"`
	Size        int64             `json:"size,omitempty"`
	UID         int               `json:"uid,omitempty"`
	GID         int               `json:"gid,omitempty"`
	ModTime     *time.Time        `json:"modtime,omitempty"`
	AccessTime  *time.Time        `json:"accesstime,omitempty"`
	ChangeTime  *time.Time        `json:"changetime,omitempty"`
	Devmajor    int64             `json:"devMajor,omitempty"`
	Devminor    int64             `json:"devMinor,omitempty"`
	Xattrs      map[string]string `json:"xattrs,omitempty"` // base64
	Digest      string            `json:"digest,omitempty"`
	Offset      int64             `json:"offset,omitempty"`
	EndOffset   int64             `json:"endOffset,omitempty"`
	ChunkSize   int64             `json:"chunkSize,omitempty"`
	ChunkOffset int64             `json:"chunkOffset,omitempty"`
	ChunkDigest string            `json:"chunkDigest,omitempty"`
	ChunkType   string            `json:"chunkType,omitempty"`
}

func newTOCEntry(h *tar.Header) (tocEntry, error) {
	if err := representable(h); err != nil {
		return tocEntry{}, err
	}
	kind, err := typeName(h.Typeflag)
	if err != nil {
		return tocEntry{}, err
	}
	e := tocEntry{
		Type: kind, Name: h.Name, Linkname: h.Linkname, Mode: h.Mode, UID: h.Uid, GID: h.Gid,
		ModTime: instant(h.ModTime), AccessTime: instant(h.AccessTime), ChangeTime: instant(h.ChangeTime),
		Devmajor: h.Devmajor, Devminor: h.Devminor,
	}
	if kind == "reg" {
		e.Size = h.Size
	}
	found, err := xattrs(h.PAXRecords)
	if err != nil {
		return tocEntry{}, err
	}
	if len(found) > 0 {
		e.Xattrs = make(map[string]string, len(found))
		for name, value := range found {
			e.Xattrs[name] = base64.StdEncoding.EncodeToString([]byte(value))
		}
	}
	return e, nil
}

// representable reports whether a table of contents, being JSON, can hold the
// names of an entry, which must be Unicode, and its time (RFC 3339).
func representable(h *tar.Header) error {
	switch year := h.ModTime.UTC().Year(); {
	case !utf8.ValidString(h.Name) || !utf8.ValidString(h.Linkname):
		return fmt.Errorf("%w: its name or target is not UTF-8", ErrUnrepresentable)
	case year < 0 || year > 9999:
		return fmt.Errorf("%w: its time is in the year %d", ErrUnrepresentable, year)
	}
	return nil
}

// typeName is what tables of contents call a type of tar entry.
func typeName(flag byte) (string, error) {
	switch flag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return "reg", nil
	case tar.TypeDir:
		return "dir", nil
	case tar.TypeSymlink:
		return "symlink", nil
	case tar.TypeLink:
		return "hardlink", nil
	case tar.TypeChar:
		return "char", nil
	case tar.TypeBlock:
		return "block", nil
	case tar.TypeFifo:
		return "fifo", nil
	}
	return "", fmt.Errorf("%w: entry of type %q", ErrMalformed, flag)
}

// instant is nil for a time that the header does not have, or JSON cannot hold.
func instant(t time.Time) *time.Time {
	if year := t.UTC().Year(); t.IsZero() || year < 0 || year > 9999 {
		return nil
	}
	t = t.UTC()
	return &t
}

// Prefixes of PAX records that hold extended attributes.
const (
	schilyXattr     = "SCHILY.xattr."
	libarchiveXattr = "LIBARCHIVE.xattr."
)

// xattrs returns the extended attributes among PAX records. libarchive writes
// both forms; its own has names escaped as in URLs and values in base64.
func xattrs(records map[string]string) (map[string]string, error) {
	found := map[string]string{}
	for key, value := range records {
		escaped, ok := strings.CutPrefix(key, libarchiveXattr)
		if !ok {
			continue
		}
		name, err := url.PathUnescape(escaped)
		if err != nil {
			return nil, fmt.Errorf("%w: xattr %.100q", ErrMalformed, escaped)
		}
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			return nil, fmt.Errorf("%w: xattr %.100q: %w", ErrMalformed, name, err)
		}
		found[name] = string(raw)
	}
	for key, value := range records {
		if name, ok := strings.CutPrefix(key, schilyXattr); ok {
			found[name] = value
		}
	}
	for name := range found {
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("%w: xattr %.100q is not UTF-8", ErrUnrepresentable, name)
		}
	}
	return found, nil
}

// tocWriter writes a table of contents entry by entry. Only its compressed
// form is kept in memory.
type tocWriter struct {
	packed  bytes.Buffer
	enc     *zstd.Encoder
	json    *sums // before compression
	entries int
}

func newTOCWriter() (*tocWriter, error) {
	t := &tocWriter{}
	var err error
	if t.enc, err = newEncoder(&t.packed); err != nil {
		return nil, err
	}
	t.json = newSums(t.enc)
	return t, nil
}

func (t *tocWriter) add(e tocEntry) error {
	before := ","
	if t.entries == 0 {
		before = `{"version":1,"entries":[`
	}
	t.entries++
	if _, err := io.WriteString(t.json, before); err != nil {
		return err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = t.json.Write(text)
	return err
}

// seal ends the table with the digest of podman's tar-split.
func (t *tocWriter) seal(split digest.Digest) error {
	before := ""
	if t.entries == 0 {
		before = `{"version":1,"entries":[`
	}
	_, err := fmt.Fprintf(t.json, `%s],"tarSplitDigest":%q}`, before, split)
	return errors.Join(err, t.enc.Close())
}
