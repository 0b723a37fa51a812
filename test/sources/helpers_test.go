//go:build linux

package sources

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/peelfs/peel/internal/testkit"
)

// shows mounts ref and compares all of it.
func shows(t *testing.T, ref string, want []testkit.Row, clock testkit.Clock) {
	t.Helper()
	p := testkit.NewPeel(t)
	root := p.Mount(ref)
	got, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range testkit.Differences(want, got, clock) {
		t.Error(d)
	}
	p.Umount(root)
}

// unzstd unpacks a file into dir.
func unzstd(t *testing.T, name, dir string) string {
	t.Helper()
	packed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	data, err := dec.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(dir, "image.tar"), data)
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// members are the entries of a tar file.
func members(t *testing.T, name string) []testkit.Entry {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []testkit.Entry
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, testkit.Entry{Header: *h, Data: data})
	}
}

// archive writes entries to a file.
func archive(t *testing.T, name string, entries ...testkit.Entry) string {
	t.Helper()
	data, err := testkit.Tar(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, name, data)
}

// untar writes the files and links of an archive below dir.
func untar(t *testing.T, name, dir string) string {
	t.Helper()
	for _, e := range members(t, name) {
		to := filepath.Join(dir, e.Name)
		switch e.Typeflag {
		case tar.TypeReg:
			write(t, to, e.Data)
		case tar.TypeSymlink:
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Symlink(e.Linkname, to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// tarOf packs a folder, without compression.
func tarOf(t *testing.T, dir, name string) string {
	t.Helper()
	var entries []testkit.Entry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		entries = append(entries, testkit.File(strings.TrimPrefix(path, dir+"/"), data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return archive(t, name, entries...)
}

// legacy is an archive as docker wrote it before it had a manifest.json: folders
// with json and layer.tar, and repositories.
func legacy(t *testing.T, from string) []testkit.Entry {
	t.Helper()
	layers := map[string][]byte{}
	var out []testkit.Entry
	all := members(t, from)
	for _, e := range all {
		if strings.HasSuffix(e.Name, ".tar") && e.Typeflag == tar.TypeReg {
			layers[e.Name] = e.Data
		}
	}
	for _, e := range all {
		switch {
		case e.Typeflag == tar.TypeSymlink:
			out = append(out, testkit.File(e.Name, layers[strings.TrimPrefix(e.Linkname, "../")]))
		case strings.Contains(e.Name, "/") || e.Name == "repositories":
			out = append(out, e)
		}
	}
	if !bytes.Contains(out[len(out)-1].Data, []byte("{")) {
		t.Fatalf("the last entry of %s is %s, not a document", from, out[len(out)-1].Name)
	}
	return out
}
