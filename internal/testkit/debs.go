//go:build linux

package testkit

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Debs returns the package files of names, in their order. Those that this
// machine does not have yet are downloaded.
func Debs(t testing.TB, names ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTime)
	defer cancel()
	files, err := debs(ctx, filepath.Join(store(), "debs"), names)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Packages are the files of Debian packages as the members of one layer. Those
// that this machine does not have yet are downloaded.
func Packages(t testing.TB, names ...string) []Entry {
	t.Helper()
	entries, err := unpackDebs(t.Context(), Debs(t, names...))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// debs downloads packages with apt-get into dir and returns their files in the
// order of names. What lies there already is not fetched again.
func debs(ctx context.Context, dir string, names []string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	find := func(name string) string {
		found, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
		if err != nil || len(found) == 0 {
			return ""
		}
		return found[0]
	}
	var missing []string
	for _, name := range names {
		if find(name) == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		if err := download(ctx, dir, missing); err != nil {
			return nil, err
		}
	}
	var files []string
	for _, name := range names {
		files = append(files, find(name))
		if files[len(files)-1] == "" {
			return nil, fmt.Errorf("apt-get download left no file of package %s in %s", name, dir)
		}
	}
	return files, nil
}

// download asks apt-get, once more after an update if its lists are missing or
// name files that are gone.
func download(ctx context.Context, dir string, names []string) error {
	apt := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	args := append([]string{"download"}, names...)
	if err := apt(args...); err == nil {
		return nil
	}
	if err := apt("update"); err != nil {
		return err
	}
	return apt(args...)
}

// unpackDebs reads the files of packages as the members of one layer: a
// directory once, names without "./", parents before children.
func unpackDebs(ctx context.Context, files []string) ([]Entry, error) {
	seen := map[string]int{}
	var out []Entry
	for _, file := range files {
		cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
		archive, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("dpkg-deb %s: %w", file, err)
		}
		entries, err := readTar(archive)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, e := range entries {
			name := clean(e.Name)
			if _, twice := seen[name]; twice || name == "" {
				continue
			}
			seen[name] = len(out)
			out = append(out, e)
		}
	}
	return out, nil
}

func readTar(archive []byte) ([]Entry, error) {
	var out []Entry
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		e := Entry{Header: *h}
		e.Name = clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			e.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			e.Linkname = clean(h.Linkname)
		}
		e.AccessTime, e.ChangeTime = time.Time{}, time.Time{}
		if e.Data, err = io.ReadAll(r); err != nil {
			return nil, err
		}
		e.Data = slices.Clip(e.Data)
		out = append(out, e)
	}
}
