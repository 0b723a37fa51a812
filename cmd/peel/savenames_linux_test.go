package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestSaveSameTag: images of one tag do not take it from each other, unless the
// user says so.
func TestSaveSameTag(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, s.Dir, "one", "shelf")
	reg.Push(t, s.Dir, "one", "board")
	reg.Push(t, s.Dir, "two", "shelf")
	shelf, board := reg.Ref("shelf", "one"), reg.Ref("board", "one")
	for _, tc := range []struct {
		name string
		save func(ref, dir string) []string
	}{
		{"save", func(ref, dir string) []string { return []string{"save", ref, "-o", "oci:" + dir} }},
		{"pull", func(ref, dir string) []string { return []string{"pull", "--destination", dir, ref} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "layout")
			for _, ref := range []string{shelf, board, shelf, board} {
				got := peel(t, append(tc.save(ref, dir), "--platform", "linux/amd64")...)
				if got.code != 0 || strings.Contains(got.err, board) != (ref == board) {
					t.Fatalf("%s: %+v", ref, got)
				}
			}
			skopeoFinds(t, "oci:"+dir+":one", s.one)
			skopeoFinds(t, "oci:"+dir+":"+board, s.one)
			for _, name := range []string{shelf, board} {
				if got := peel(t, "cat", "oci:"+dir+":"+name+":/b"); got.out != "b" {
					t.Errorf("%s: %+v", name, got)
				}
			}
		})
	}
	t.Run("tags without a repository", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "layout")
		steps := []struct {
			ref, to string
			code    int
			says    string
		}{
			{shelf, "", 0, ""},
			{"oci:" + s.Dir + ":one", "", 0, ""},
			{reg.Ref("shelf", "two"), ":one", 0, ""},
			{"oci:" + s.Dir + ":one", "", exitFailed, "-o oci:DIR:TAG"},
			{"oci:" + s.Dir + ":one", ":one", 0, ""},
		}
		for _, step := range steps {
			got := peel(t, "save", step.ref, "--platform", "linux/amd64", "-o", "oci:"+dir+step.to)
			if got.code != step.code || !strings.Contains(got.err, step.says) {
				t.Fatalf("%+v: %+v", step, got)
			}
		}
		skopeoFinds(t, "oci:"+dir+":one", s.one)
	})
}
