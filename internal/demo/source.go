package demo

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// recipe says which of the machine's files make one layer.
type recipe struct {
	first    []string // files taken before the walk, so that no limit drops them
	roots    []string // walked in this order, in byte order of names
	maxBytes int64    // of all files together
	maxFile  int64    // longer files are left out, bytes
	maxNames int
}

// recipes are the layers, bottom first. The limits make an image that two
// cores build in a few seconds.
func recipes() []recipe {
	return []recipe{
		{
			roots:    []string{"/usr/lib", "/usr/libexec", "/usr/lib64"},
			maxBytes: 90 << 20, maxFile: 8 << 20, maxNames: 3000,
		},
		{
			first:    []string{program},
			roots:    []string{"/usr/bin", "/usr/sbin", "/usr/local/bin"},
			maxBytes: 60 << 20, maxFile: 8 << 20, maxNames: 2000,
		},
		{
			roots:    []string{"/usr/share", "/usr/include", "/usr/local"},
			maxBytes: 50 << 20, maxFile: 1 << 20, maxNames: 4000,
		},
	}
}

// contents is what went into a layer.
type contents struct {
	names int    // files, directories and symlinks
	bytes int64  // of the files
	pick  string // a text-sized file to read, relative to the root; "" if none
}

// pickMin and pickMax are the sizes of a file worth showing, bytes.
const pickMin, pickMax = 8 << 10, 64 << 10

// tarball writes a layer.
type tarball struct {
	recipe
	contents
	out  *tar.Writer
	seen map[string]bool
}

// write makes the layer's tar from the machine's files. What cannot be read,
// or changes meanwhile, is left out.
func (r recipe) write(ctx context.Context, w io.Writer) (contents, error) {
	t := &tarball{recipe: r, out: tar.NewWriter(w), seen: map[string]bool{}}
	for _, name := range r.first {
		if fi, err := os.Lstat(name); err == nil {
			if err := t.add(name, fi); err != nil {
				return t.contents, err
			}
		}
	}
	for _, root := range r.roots {
		if fi, err := os.Lstat(root); err != nil || !fi.IsDir() {
			continue // absent, or a link to a folder that is walked by its own name
		}
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if cerr := ctx.Err(); cerr != nil {
				return cerr
			}
			if err != nil {
				return nil // unreadable directory
			}
			fi, err := d.Info()
			if err != nil {
				return nil
			}
			if t.names >= t.maxNames || t.bytes >= t.maxBytes {
				return fs.SkipAll
			}
			return t.add(name, fi)
		})
		if err != nil {
			return t.contents, err
		}
	}
	return t.contents, t.out.Close()
}

// add appends one name, and before it the directories that it lies in.
func (t *tarball) add(name string, fi fs.FileInfo) error {
	rel := strings.TrimPrefix(filepath.ToSlash(name), "/")
	if t.seen[rel] {
		return nil
	}
	var link string
	var data []byte
	switch {
	case fi.IsDir():
	case fi.Mode()&fs.ModeSymlink != 0:
		var err error
		if link, err = os.Readlink(name); err != nil {
			return nil
		}
	case fi.Mode().IsRegular():
		if fi.Size() > min(t.maxFile, t.maxBytes-t.bytes) || fi.Mode()&0o004 == 0 {
			return nil
		}
		var err error
		if data, err = os.ReadFile(name); err != nil || int64(len(data)) != fi.Size() {
			return nil
		}
	default:
		return nil
	}
	if dir := path.Dir(rel); dir != "." {
		if di, err := os.Lstat("/" + dir); err == nil {
			if err := t.add("/"+dir, di); err != nil {
				return err
			}
		}
	}
	return t.put(rel, fi, link, data)
}

func (t *tarball) put(rel string, fi fs.FileInfo, link string, data []byte) error {
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	h.Name, h.Mode, h.Format = rel, int64(fi.Mode().Perm()), tar.FormatPAX
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if fi.IsDir() {
		h.Name += "/"
	}
	t.seen[rel] = true
	t.names++
	t.bytes += int64(len(data))
	if n := len(data); t.pick == "" && n >= pickMin && n <= pickMax && !bytes.ContainsRune(data, 0) {
		t.pick = rel
	}
	if err := t.out.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	_, err = t.out.Write(data)
	return err
}
