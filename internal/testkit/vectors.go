//go:build linux

package testkit

import (
	"path/filepath"
	"testing"
)

// Vectors is the folder of images that other tools made, which lies beside the
// project, and what each of them must show. It is not part of the project:
// where it is missing, found is false, and only CI insists on it.
func Vectors(t testing.TB) (dir string, want []Row, found bool) {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "vectors"))
	if err == nil {
		want, err = ReadListing(filepath.Join(dir, "tricky.expected.jsonl"))
	}
	if err != nil {
		t.Logf("the test vectors are not here, only generated images are compared: %v", err)
		return dir, nil, false
	}
	return dir, want, true
}
