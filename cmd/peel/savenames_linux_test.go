package main

import (
	"bytes"
	"os"
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
	t.Run("copy of a layout", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "layout")
		from := shelf
		for _, to := range []string{dir, dir + "-2", dir + "-3"} {
			if got := peel(t, "save", from, "--platform", "linux/amd64", "-o", "oci:"+to); got.code != 0 || got.err != "" {
				t.Fatalf("%s: %+v", from, got)
			}
			skopeoFinds(t, "oci:"+to+":one", s.one)
			if got := peel(t, "cat", "oci:"+to+":"+shelf+":/b"); got.out != "b" {
				t.Errorf("%s: %+v", to, got)
			}
			from = "oci:" + to
		}
	})
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

// TestSaveFullOutput: the error says that standard output is full, and what was
// written there.
func TestSaveFullOutput(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var errs bytes.Buffer
	args := []string{"--cache", filepath.Join(t.TempDir(), "cache"), "save", "oci:" + s.Dir + ":two", "--platform", "linux/amd64"}
	code := run(t.Context(), args, streams{out: full, err: &errs})
	want := "peel: docker-archive to standard output: no space left on device\n" +
		"      free some space where standard output leads, or write elsewhere with -o\n"
	if code != exitFailed || errs.String() != want {
		t.Errorf("exit code %d: %s", code, &errs)
	}
}

// TestPullNamesOnce: of several images, each error names its own once.
func TestPullNamesOnce(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	refs := []string{reg.Ref("a", "none"), reg.Ref("b", "none")}
	got := peel(t, append([]string{"pull"}, refs...)...)
	for _, ref := range refs {
		if got.code != exitNotFound || strings.Count(got.err, ref) != 1 {
			t.Errorf("%s: %+v", ref, got)
		}
	}
}
