package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestOpenCreatesPrivateFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Dir() != dir {
		t.Errorf("Dir() = %s, want %s", c.Dir(), dir)
	}
	if err := c.Write("index", testKey(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	l := newLayout(3, 10)
	openStore(t, c, l)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", path, fi.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenUnusable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		_, err := Open(dir)
		if !errors.Is(err, ErrUnusable) || !errdefs.IsFailedPrecondition(err) {
			t.Fatalf("Open(%s): %v", dir, err)
		}
		for _, part := range []string{dir, "--cache", "PEEL_CACHE"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not mention %s", err, part)
			}
		}
	}
}

func TestOpenSweepsOldTemporaryFiles(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	past := time.Now().Add(-2 * staleTemp)
	for _, name := range []string{"old", "new"} {
		path := filepath.Join(c.dir, "tmp", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "old" {
			if err := os.Chtimes(path, past, past); err != nil {
				t.Fatal(err)
			}
		}
	}
	folder := filepath.Join(c.dir, "tmp", "old folder")
	if err := errors.Join(os.MkdirAll(filepath.Join(folder, "in it"), 0o700), os.Chtimes(folder, past, past)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c.dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(c.dir, "tmp", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{filepath.Join(c.dir, "tmp", "new")}, left); diff != "" {
		t.Error(diff)
	}
}

func TestDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/xdg")
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	want := "/var/lib/peel"
	if os.Geteuid() != 0 {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		want = filepath.Join(user, "peel")
	}
	if dir != want {
		t.Errorf("Dir() = %s, want %s", dir, want)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	key := testKey()
	for _, kind := range []string{"image/manifest", "image/config", "index", "tree", "claims", "profile"} {
		if _, err := c.Read(kind, key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read(%s) of nothing: %v", kind, err)
		}
		if _, err := c.Map(kind, key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Map(%s) of nothing: %v", kind, err)
		}
	}
	for _, kind := range []string{"image/manifest", "image/config", "index", "tree", "claims", "profile"} {
		if err := c.Write(kind, key, []byte("old "+kind)); err != nil {
			t.Fatal(err)
		}
		m, err := c.Map(kind, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(kind, key, []byte("new "+kind)); err != nil {
			t.Fatal(err)
		}
		data, err := c.Read(kind, key)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"old " + kind, "new " + kind}, []string{string(m.Bytes()), string(data)}); diff != "" {
			t.Error(diff)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if _, err := c.Free("image/config", key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Read("image/config", key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read after Free: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(c.dir, "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v, %v", left, err)
	}
}

func TestWriteAfterFolderWasDeleted(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	if err := c.Write("tree", testKey(), []byte("x")); err != nil {
		t.Error(err)
	}
	if err := c.SetRef("alpine", testKey()); err != nil {
		t.Error(err)
	}
}

func TestBadArguments(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	for _, tt := range []struct {
		name, kind string
		key        digest.Digest
	}{
		{"unknown kind", "blobs", testKey()},
		{"half a kind", "image", testKey()},
		{"kind with a path", "index/../../x", testKey()},
		{"no digest", "index", ""},
		{"path for a digest", "index", "sha256:../../x"},
		{"short digest", "index", "sha256:ab"},
		{"unknown algorithm", "index", "md5:d41d8cd98f00b204e9800998ecf8427e"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, readErr := c.Read(tt.kind, tt.key)
			_, mapErr := c.Map(tt.kind, tt.key)
			_, freeErr := c.Free(tt.kind, tt.key)
			for _, err := range []error{readErr, mapErr, c.Write(tt.kind, tt.key, nil), freeErr} {
				if !errdefs.IsInvalidArgument(err) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}
