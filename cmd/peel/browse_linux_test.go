package main

import (
	"archive/tar"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/internal/testkit"
)

var update = flag.Bool("update", false, "write the golden files") //nolint:gochecknoglobals // a flag of the test binary

// library is a registry with one image of two layers: an eStargz one below a
// plain gzip one.
func library(t *testing.T) (reg *testkit.Registry, ref string) {
	t.Helper()
	reg = testkit.NewRegistry(t)
	mode := func(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	below := testkit.Encode(t, testkit.Stargz,
		testkit.Dir("etc"), testkit.File("etc/.hidden", []byte("h")), testkit.File("etc/motd", []byte("below\n")),
		testkit.Dir("usr"), testkit.Dir("usr/bin"),
		testkit.File("usr/bin/ping", []byte("elf")).With(mode(0o4755)).Xattr("security.capability", "\x01\x00"),
		testkit.File("gone", nil), testkit.Symlink("bin", "usr/bin"), testkit.Symlink("loop", "loop"),
	)
	above := testkit.Encode(t, testkit.Gzip,
		testkit.File("etc/motd", []byte("above\n")), testkit.Hardlink("etc/motd.2", "etc/motd"), testkit.Whiteout("gone"),
		testkit.Symlink("etc/link", "../etc/motd"), testkit.Dir("tmp").With(mode(0o1777)),
		testkit.File("etc/odd\nname\xff", []byte("odd")).With(func(h *tar.Header) {
			h.Uid, h.Gid, h.ModTime = 1000, 100, time.Unix(-1, 500_000_000)
		}),
		testkit.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "etc/null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: testkit.Epoch}},
		testkit.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "etc/pipe", Mode: 0o600, ModTime: testkit.Epoch}},
	)
	reg.Publish(t, "lib/tool", "1", below, above)
	return reg, reg.Ref("lib/tool", "1")
}

// golden compares text with a file of testdata. Digests depend on how many
// processors built a layer; they are numbered by first appearance instead.
func golden(t *testing.T, name, text string) {
	t.Helper()
	seen := map[string]int{}
	text = regexp.MustCompile("sha256:[0-9a-f]{64}").ReplaceAllStringFunc(text, func(d string) string {
		if seen[d] == 0 {
			seen[d] = len(seen)
		}
		return fmt.Sprintf("sha256:(%d)", seen[d])
	})
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestBrowse(t *testing.T) {
	t.Parallel()
	_, ref := library(t)
	for _, tc := range []struct {
		name string // of the golden file
		args []string
	}{
		{"ls", []string{"ls", ref}},
		{"ls-all", []string{"ls", "-a", ref + ":/etc"}},
		{"ls-long", []string{"ls", "-l", ref + ":/etc/"}},
		{"ls-recursive", []string{"ls", "-R", ref + ":/"}},
		{"ls-follows", []string{"ls", ref + ":/bin"}},
		{"ls-long-link", []string{"ls", "-l", ref + ":/bin"}},
		{"ls-file", []string{"ls", "-l", ref + ":/etc/motd"}},
		{"tree", []string{"tree", ref}},
		{"tree-level", []string{"tree", "-a", "-L", "1", ref + ":/etc/.."}},
		{"tree-dirs", []string{"tree", "-d", ref}},
		{"cat", []string{"cat", ref + ":/etc/link", ref + ":/bin/ping", ref + ":/etc/motd.2"}},
		{"stat", []string{"stat", ref + ":/bin", ref + ":/usr/bin/ping", ref + ":/etc/null", ref + ":/etc/odd\nname\xff"}},
		{"stat-follows", []string{"stat", "-L", ref + ":/bin"}},
		{"ls.json", []string{"ls", "--json", "-R", ref}},
		{"ls-file.json", []string{"ls", "--json", ref + ":/etc/link"}},
		{"ls-empty.json", []string{"ls", "--json", ref + ":/tmp"}},
		{"tree.json", []string{"tree", "--json", "-L", "2", ref}},
		{"stat.json", []string{"stat", "--json", ref + ":/usr/bin/ping", ref + ":/etc/null", ref + ":/etc/odd\nname\xff"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := peel(t, tc.args...)
			if got.code != 0 || got.err != "" {
				t.Fatalf("%+v", got)
			}
			if strings.HasSuffix(tc.name, ".json") && !json.Valid([]byte(got.out)) {
				t.Errorf("not JSON: %s", got.out)
			}
			golden(t, tc.name, got.out)
		})
	}
}

func TestBrowseFails(t *testing.T) {
	t.Parallel()
	reg, ref := library(t)
	for _, tc := range []struct {
		name string
		args []string
		want outcome
	}{
		{"no path", []string{"cat", ref + ":/absent"}, outcome{3, "", "peel: " + ref + ": /absent: no such file or directory\n"}},
		{"hidden path", []string{"stat", ref + ":/gone"}, outcome{3, "", "peel: " + ref + ": /gone: no such file or directory\n"}},
		{"file as directory", []string{"ls", ref + ":/etc/motd/x"}, outcome{3, "", "peel: " + ref + ": /etc/motd/x: not a directory\n"}},
		{"cat of a directory", []string{"cat", ref + ":/etc"}, outcome{1, "", "peel: " + ref + ": /etc: is a directory, not a file\n"}},
		{"loop", []string{"cat", ref + ":/loop"}, outcome{1, "", "peel: " + ref + ": /loop: too many levels of symbolic links\n"}},
		{"one of two", []string{"cat", ref + ":/absent", ref + ":/etc/motd"}, outcome{3, "above\n", "peel: " + ref + ": /absent: no such file or directory\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tc.want, peel(t, tc.args...), cmp.AllowUnexported(outcome{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	t.Run("unknown image", func(t *testing.T) {
		t.Parallel()
		unknown := reg.Ref("lib/absent", "1")
		if got := peel(t, "ls", unknown); got.code != 3 || !strings.Contains(got.err, unknown) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("other platform", func(t *testing.T) {
		t.Parallel()
		if got := peel(t, "ls", "--platform", "linux/s390x", ref); got.code != 3 {
			t.Errorf("%+v", got)
		}
	})
}

func TestPull(t *testing.T) {
	t.Parallel()
	reg, ref := library(t)
	cache := filepath.Join(t.TempDir(), "cache")
	cat := func(pull string) outcome {
		return peel(t, "cat", "--cache", cache, "--pull", pull, ref+":/etc/motd")
	}
	known := outcome{0, "above\n", ""}
	if got := cat("never"); got.code != 3 {
		t.Errorf("never, before anything was asked: %+v", got)
	}
	if got := cat("missing"); got != known {
		t.Errorf("missing: %+v", got)
	}
	reg.Publish(t, "lib/tool", "1", testkit.Encode(t, testkit.Stargz, testkit.File("etc/motd", []byte("new\n"))))
	if got := cat("missing"); got != known {
		t.Errorf("missing, when the tag has moved: %+v", got)
	}
	if got := cat("never"); got != known {
		t.Errorf("never, when the tag has moved: %+v", got)
	}
	if got := cat("always"); got != (outcome{0, "new\n", ""}) {
		t.Errorf("always: %+v", got)
	}
	reg.Stop()
	if got := cat("missing"); got != (outcome{0, "new\n", ""}) {
		t.Errorf("missing, with the registry off: %+v", got)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	_, ref := library(t)
	cache := filepath.Join(t.TempDir(), "cache")
	got := peel(t, "inspect", "--cache", cache, "--json", ref)
	var in inspection
	if err := json.Unmarshal([]byte(got.out), &in); err != nil || got.code != 0 {
		t.Fatalf("%+v %v", got, err)
	}
	if in.Reference != ref || in.Digest == "" || in.IndexDigest == "" || in.Names == 0 || in.FileBytes == 0 || len(in.Layers) != 2 {
		t.Errorf("%+v", in)
	}
	type essence struct {
		format, access, trust string
		reason, toc, present  bool
	}
	var layers []essence
	for _, l := range in.Layers {
		layers = append(layers, essence{l.Format, l.Access, l.Trust, l.Reason != "", l.TOC != "", l.BytesPresent == l.BytesTotal})
	}
	want := []essence{{"eStargz", "lazy", "claimed", false, true, false}, {"gzip", "streamed", "proved", true, false, true}}
	if !slices.Equal(layers, want) {
		t.Errorf("layers %+v, want %+v", layers, want)
	}
	text := peel(t, "inspect", "--cache", cache, ref)
	for _, part := range []string{in.Digest, shortDigest(in.Layers[1].Digest) + " was read whole: ", "LAYER"} {
		if !strings.Contains(text.out, part) {
			t.Errorf("inspect does not say %q:\n%s", part, text.out)
		}
	}
}
