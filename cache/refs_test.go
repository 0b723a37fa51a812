package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestRef(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long/", 100)
	names := []string{
		"docker.io/library/alpine:latest", "docker.io/library/alpine:Latest", "ghcr.io/a/b@sha256:0123", "ghcr.io/a/b-sha256-0123",
		"localhost:5000/x:y", "localhost-5000/x-y", "", ".", "..", "a/../b", "%2e", "~", "a\x00b\nc", long + "a", long + "b",
	}
	c := openCache(t)
	for i, name := range names {
		if _, _, err := c.Ref(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q before SetRef: %v", name, err)
		}
		if err := c.SetRef(name, digest.FromString(names[i])); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		d, at, err := c.Ref(name)
		if err != nil || d != digest.FromString(name) {
			t.Errorf("%q: %s, %v", name, d, err)
		}
		if age := time.Since(at); age < 0 || age > time.Minute {
			t.Errorf("%q: resolved at %v", name, at)
		}
	}
	files, err := os.ReadDir(filepath.Join(c.dir, "refs"))
	if err != nil || len(files) != len(names) {
		t.Errorf("%d files for %d references: %v", len(files), len(names), err)
	}
}

func TestDamagedRefIsAbsent(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "{", `{"name":"other","digest":"` + string(testKey()) + `"}`, `{"name":"x","digest":"y"}`} {
		c := openCache(t)
		if err := c.SetRef("x", testKey()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.refPath("x"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Ref("x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func FuzzRefFile(f *testing.F) {
	f.Add("alpine", "Alpine")
	f.Add("a/b:c", "a%2fb%3ac")
	f.Add(strings.Repeat("/", 66), strings.Repeat("/", 67))
	f.Add(".", "..")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := refFile(a), refFile(b)
		if (a == b) != strings.EqualFold(x, y) {
			t.Errorf("%q and %q are kept in %q and %q", a, b, x, y)
		}
		if x == "" || len(x) > 255 || x[0] == '.' || strings.ContainsAny(x, "/\\:\x00") {
			t.Errorf("%q is kept in %q", a, x)
		}
	})
}
