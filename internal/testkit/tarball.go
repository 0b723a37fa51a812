//go:build linux

package testkit

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"
)

// Epoch is the modification time of whatever a test gives no other.
var Epoch = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// An Entry is one member of a layer.
type Entry struct {
	tar.Header
	Data []byte
}

// File is a regular file of mode 0644.
func File(name string, data []byte) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: Epoch}, Data: data}
}

// Dir is a directory of mode 0755.
func Dir(name string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: 0o755, ModTime: Epoch}}
}

// Symlink is a symbolic link to target.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: Epoch}}
}

// Hardlink is another name of target, a path inside the image.
func Hardlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: Epoch}}
}

// Whiteout hides name of the layers below.
func Whiteout(name string) Entry {
	return File(path.Join(path.Dir(name), ".wh."+path.Base(name)), nil)
}

// Opaque hides everything the layers below have in the directory name.
func Opaque(name string) Entry { return File(path.Join(name, ".wh..wh..opq"), nil) }

// With returns e after change.
func (e Entry) With(change func(*tar.Header)) Entry {
	if e.PAXRecords != nil {
		records := make(map[string]string, len(e.PAXRecords))
		for k, v := range e.PAXRecords {
			records[k] = v
		}
		e.PAXRecords = records
	}
	change(&e.Header)
	return e
}

// Xattr returns e with an extended attribute.
func (e Entry) Xattr(name, value string) Entry {
	return e.With(func(h *tar.Header) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	})
}

// Noise is n bytes that do not compress, the same for the same seed.
func Noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	// The generator fills whatever it is given and reports no error.
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// Tar writes entries as a tar archive in PAX form, whose times are exact to
// the nanosecond.
func Tar(entries ...Entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Format = tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.Data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// clean is the path of a member as the image has it, without leading slash;
// "" is the root.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// undescribed lists the directories whose modification time no layer settles:
// those that no layer describes, and those that a later layer than the one that
// describes them changes implicitly, by a child or a whiteout in them.
func undescribed(layers [][]Entry) []string {
	settled := map[string]bool{"": false}
	for _, layer := range layers {
		here := map[string]bool{}
		for _, e := range layer {
			name := clean(e.Name)
			if e.Typeflag == tar.TypeDir {
				here[name] = true
			}
			for dir := path.Dir(name); name != ""; name, dir = dir, path.Dir(dir) {
				if dir == "." {
					dir = ""
				}
				settled[dir] = false
			}
		}
		for name := range here {
			settled[name] = true
		}
	}
	var out []string
	for name, ok := range settled {
		if !ok {
			out = append(out, "/"+name)
		}
	}
	slices.Sort(out)
	return out
}
