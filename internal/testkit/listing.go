//go:build linux

package testkit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A Row is one path of a tree with everything that must be equal in a mount
// and in an eager unpack. Its JSON is that of the test vectors' listing.py.
type Row struct {
	Path    string            `json:"path"`
	Type    string            `json:"type"`
	Mode    string            `json:"mode"` // octal, as Python writes it
	UID     uint32            `json:"uid"`
	GID     uint32            `json:"gid"`
	MtimeNs *int64            `json:"mtime_ns"` // nil: any
	Size    *int64            `json:"size,omitempty"`
	Nlink   *uint64           `json:"nlink,omitempty"`
	SHA256  string            `json:"sha256,omitempty"`
	Link    string            `json:"link,omitempty"`
	Rdev    []uint32          `json:"rdev,omitempty"`
	Xattrs  map[string]string `json:"xattrs,omitempty"` // hex
}

// List walks root and reads every file. The root itself is "/".
func List(root string) ([]Row, error) {
	var rows []*Row
	var g errgroup.Group
	g.SetLimit(8)
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		r, err := row(root, name)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		rows = append(rows, r)
		if r.Type == "file" {
			g.Go(func() (err error) {
				r.SHA256, err = Sum(name)
				return err
			})
		}
		return nil
	})
	if err := errors.Join(err, g.Wait()); err != nil {
		return nil, err
	}
	out := make([]Row, len(rows))
	for i, r := range rows {
		out[i] = *r
	}
	slices.SortFunc(out, func(a, b Row) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Sum is the SHA-256 of a file's content, in hex.
func Sum(name string) (sum string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%q: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func row(root, name string) (*Row, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return nil, err
	}
	kinds := map[uint32]string{
		unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink", unix.S_IFCHR: "char",
		unix.S_IFBLK: "block", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket",
	}
	mtime := st.Mtim.Nano()
	r := &Row{
		Path: "/" + strings.TrimPrefix(strings.TrimPrefix(name, root), "/"),
		Type: kinds[st.Mode&unix.S_IFMT], Mode: "0o" + strconv.FormatUint(uint64(st.Mode&0o7777), 8),
		UID: st.Uid, GID: st.Gid, MtimeNs: &mtime,
	}
	var err error
	switch r.Type {
	case "file":
		r.Size, r.Nlink = &st.Size, &st.Nlink
	case "symlink":
		r.Link, err = os.Readlink(name)
	case "char", "block":
		r.Rdev = []uint32{unix.Major(st.Rdev), unix.Minor(st.Rdev)}
	}
	if err != nil {
		return nil, err
	}
	r.Xattrs, err = xattrs(name)
	return r, err
}

func xattrs(name string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, buf)
	if err != nil || n == 0 {
		return nil, err
	}
	out := map[string]string{}
	value := make([]byte, 64<<10)
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(name, attr, value)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", attr, err)
		}
		out[attr] = hex.EncodeToString(value[:n])
	}
	return out, nil
}

// ReadListing reads rows from a file of JSON lines.
func ReadListing(name string) ([]Row, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var rows []Row
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Row
		if err := json.Unmarshal(shelter(lines.Bytes()), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		r.Path, r.Link = unshelter(r.Path), unshelter(r.Link)
		rows = append(rows, r)
	}
	return rows, lines.Err()
}

// Python writes a byte of a name that is not UTF-8 as a lone surrogate
// (PEP 383), which Go's decoder would replace. shelter turns \udcXX into a
// code point of the last private plane, U+10FFXX, and unshelter that into the
// byte.
func shelter(line []byte) []byte {
	escapes := regexp.MustCompile(`\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\udc[89a-f][0-9a-f]`)
	return escapes.ReplaceAllFunc(line, func(m []byte) []byte {
		if len(m) != len(`\udc80`) {
			return m
		}
		return append([]byte(`\udbff\udf`), m[4:]...)
	})
}

func unshelter(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= 0x10ff80 && r <= 0x10ffff {
			b.WriteByte(byte(r))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
