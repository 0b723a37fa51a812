//go:build linux

package testkit

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

func sampleTar(t *testing.T) []byte {
	t.Helper()
	zeros := append(bytes.Repeat([]byte("data"), 30_000), make([]byte, 200_000)...)
	archive, err := Tar(
		Dir("etc"), File("etc/hosts", []byte("127.0.0.1 localhost\n")), File("etc/empty", nil),
		File("etc/holes", append(zeros, "end"...)), File("etc/only-zeros", make([]byte, 5000)),
		Symlink("etc/link", "hosts"), Hardlink("etc/hard", "etc/hosts"),
		File("etc/xattr", []byte("x")).Xattr("user.a", "b"), Whiteout("etc/gone"),
	)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

func TestFormsHoldTheArchive(t *testing.T) {
	t.Parallel()
	archive := sampleTar(t)
	want := members(t, archive)
	for _, f := range Forms() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			l, err := f.Encode(archive)
			if err != nil {
				t.Fatal(err)
			}
			var r io.Reader = bytes.NewReader(l.Blob)
			switch {
			case strings.HasSuffix(l.Desc.MediaType, "gzip"):
				if r, err = gzip.NewReader(r); err != nil {
					t.Fatal(err)
				}
			case strings.HasSuffix(l.Desc.MediaType, "zstd"):
				dec, err := zstd.NewReader(r)
				if err != nil {
					t.Fatal(err)
				}
				defer dec.Close()
				r = dec
			}
			plain, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := digest.FromBytes(plain); got != l.DiffID {
				t.Errorf("content has digest %s, the layer says %s", got, l.DiffID)
			}
			got := members(t, plain)
			delete(got, "stargz.index.json")
			delete(got, ".no.prefetch.landmark")
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("members (-want +got):\n%s", d)
			}
			if _, ok := l.Desc.Annotations[stargzTOC]; ok != (f.Indexed() && f != ZstdChunked) {
				t.Errorf("annotations %v", l.Desc.Annotations)
			}
		})
	}
}

func members(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := readTar(archive)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out[e.Name] = string(e.Typeflag) + e.Linkname + string(e.Data)
	}
	return out
}

func TestDebianSamples(t *testing.T) {
	t.Parallel()
	const least = 5000
	for _, s := range Debian(t) {
		files, links, special, capable := 0, 0, 0, 0
		for _, r := range s.Expected {
			if r.Type == "file" {
				files++
				if *r.Nlink > 1 {
					links++
				}
			}
			if r.Type == "char" || r.Type == "block" || r.Type == "fifo" {
				special++
			}
			if r.Xattrs["security.capability"] != "" {
				capable++
			}
			if strings.Contains(r.Path, "/.wh.") {
				t.Errorf("%s: %s in the oracle", s.Name, r.Path)
			}
		}
		t.Logf("%s: %d paths, %d files, %d of them linked, %d special, %d capable; tags %v", s.Name, len(s.Expected), files, links, special, capable, s.Tags)
		if files < least || links < 20 || special < 4 || capable == 0 || len(s.Tags) != len(Forms())+len([]string{Mixed, Docker, Skopeo}) {
			t.Errorf("%s is not the image the tests want", s.Name)
		}
	}
}

func TestListingIsThatOfTheVectors(t *testing.T) {
	t.Parallel()
	script := filepath.Join("..", "..", "..", "shared", "vectors", "listing.py")
	if _, err := os.Stat(script); err != nil {
		t.Logf("the test vectors are not here, so Go's listing is not compared with theirs: %v", err)
		return
	}
	root := t.TempDir()
	for name, data := range map[string]string{"plain": "x", "two words": "yy", "\xff\xfe": "not UTF-8", "ünï": "z", "\U0001f433": "pair", `back\\slash`: ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("plain", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "python3", script, root).Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "listing")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := ReadListing(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := List(root)
	if err != nil {
		t.Fatal(err)
	}
	if d := Differences(want, got, Exact); d != nil {
		t.Error(strings.Join(d, "\n"))
	}
}

func TestDifferences(t *testing.T) {
	t.Parallel()
	at := func(ns int64) Row { return Row{Path: "/a", Type: "file", MtimeNs: &ns} }
	for _, tc := range []struct {
		name      string
		want, got []Row
		clock     Clock
		n         int
	}{
		{"equal", []Row{at(1)}, []Row{at(1)}, Exact, 0},
		{"time differs", []Row{at(1)}, []Row{at(2)}, Exact, 1},
		{"any time", []Row{{Path: "/a", Type: "file"}}, []Row{at(2)}, Exact, 0},
		{"rounded", []Row{at(1_600_000_000)}, []Row{at(2_000_000_000)}, WholeSeconds, 0},
		{"rounded where exact is due", []Row{at(1_600_000_000)}, []Row{at(2_000_000_000)}, Exact, 1},
		{"neither exact nor whole", []Row{at(1_600_000_000)}, []Row{at(1_500_000_000)}, WholeSeconds, 1},
		{"a second off", []Row{at(1_000_000_000)}, []Row{at(2_000_000_000)}, WholeSeconds, 1},
		{"missing", []Row{at(1), {Path: "/b"}}, []Row{at(1)}, Exact, 1},
		{"extra", []Row{at(1)}, []Row{{Path: "/"}, at(1)}, Exact, 1},
		{"xattr", []Row{{Path: "/x", Xattrs: map[string]string{"user.a": "00"}}}, []Row{{Path: "/x"}}, Exact, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := Differences(tc.want, tc.got, tc.clock); len(got) != tc.n {
				t.Errorf("%d differences, want %d: %v", len(got), tc.n, got)
			}
		})
	}
}

func TestUndescribed(t *testing.T) {
	t.Parallel()
	layers := [][]Entry{
		{Dir("a"), File("a/x", nil), File("b/x", nil), Dir("c"), Dir("d")},
		{File("a/y", nil), Whiteout("d/gone"), Dir("c").With(func(h *tar.Header) { h.Mode = 0o700 }), File("c/x", nil)},
	}
	if d := cmp.Diff([]string{"/", "/a", "/b", "/d"}, undescribed(layers)); d != "" {
		t.Errorf("undescribed (-want +got):\n%s", d)
	}
}
