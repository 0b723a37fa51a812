package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// folder is a tree of files: a directory, or what an archive holds.
type folder interface {
	// open follows links, never out of the folder. What is not there is an
	// fs.ErrNotExist. The caller closes the file.
	open(name string) (*file, error)
	// folders lists the folders on the top level, in order.
	folders() ([]string, error)
	Close() error
}

// clean is the name of a member or file as the folder knows it; "." is the
// folder itself. What is wrong with a name that cannot be one is a word for
// an error.
func clean(name string) (cleaned, wrong string) {
	switch {
	case name == "":
		return "", "the name is empty"
	case len(name) > maxName:
		return "", fmt.Sprintf("the name has %d bytes, more than %d", len(name), maxName)
	case strings.ContainsRune(name, 0):
		return "", "the name holds a NUL"
	case strings.HasPrefix(name, "/"):
		return "", "the name is absolute"
	case slices.Contains(strings.Split(name, "/"), ".."):
		return "", "the name leads out of its folder"
	}
	return path.Clean(name), ""
}

// document is the content of the file called name, of at most limit bytes.
func document(in folder, name string, limit int64) ([]byte, error) {
	f, err := in.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.read(limit)
}

// memory is a file that exists here only.
func memory(name string, content []byte) *file {
	return &file{ReaderAt: bytes.NewReader(content), name: name, size: int64(len(content))}
}

// directory is a directory of this machine.
type directory struct{ root *os.Root }

func openDirectory(at string) (*directory, error) {
	fi, err := os.Stat(at)
	if err != nil {
		return nil, missing(err)
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%w: it is a file; write docker-archive:FILE or oci-archive:FILE for an archive", ErrMalformed)
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		return nil, err
	}
	return &directory{root}, nil
}

// missing gives a place that is not there the class that programs look for.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no such file or folder", ErrNotFound)
	}
	return err
}

func (d *directory) open(name string) (*file, error) {
	cleaned, wrong := clean(name)
	if wrong != "" {
		return nil, fmt.Errorf("%w: %s: %s", ErrMalformed, quote(name), wrong)
	}
	// Before it is opened, which of a named pipe would not return.
	fi, err := d.root.Stat(cleaned)
	if err != nil {
		return nil, d.explain(cleaned, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrMalformed, quote(name))
	}
	f, err := d.root.Open(cleaned)
	if err != nil {
		return nil, err
	}
	h, err := hold(f, f.Name())
	if err != nil {
		return nil, err
	}
	return &file{ReaderAt: h, name: cleaned, size: h.was.size, owner: h}, nil
}

// explain tells of a link that cannot be followed that it is one.
func (d *directory) explain(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	target, linkErr := d.root.Readlink(name)
	if linkErr != nil {
		return err
	}
	return fmt.Errorf("%w: %s is a link to %s, and links out of the folder or in circles are not followed; copy what it means here",
		ErrMalformed, quote(name), quote(target))
}

func (d *directory) folders() ([]string, error) {
	top, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer top.Close()
	list, err := top.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(list) > maxEntries {
		return nil, fmt.Errorf("%w: more than %d files", ErrMalformed, maxEntries)
	}
	var names []string
	for _, e := range list {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *directory) Close() error { return d.root.Close() }
