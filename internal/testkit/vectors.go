//go:build linux

package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// Vectors is the folder of images that other tools made, which lies beside the
// project, and what each of them must show. It is not part of the project:
// where it is missing, found is false, and only CI insists on it.
func Vectors(t testing.TB) (dir string, want []Row, found bool) {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for filepath.Dir(root) != root {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		root = filepath.Dir(root)
	}
	dir = filepath.Join(filepath.Dir(root), "shared", "vectors")
	if want, err = ReadListing(filepath.Join(dir, "tricky.expected.jsonl")); err != nil {
		t.Logf("the test vectors are not here, only generated images are compared: %v", err)
		return dir, nil, false
	}
	return dir, want, true
}
