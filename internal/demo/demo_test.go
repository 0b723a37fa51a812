package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/peelfs/peel/internal/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample makes a tree of files and a recipe for it.
func sample(t *testing.T) (root string, r recipe) {
	t.Helper()
	root = t.TempDir()
	for name, data := range map[string]string{
		"a/small": "small", "a/b/text": strings.Repeat("words ", 2000), "a/long": strings.Repeat("x", 1<<20),
		"c/empty": "", "c/private": "secret",
	} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(data), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(root, "c/private"), 0o600), os.Symlink("../a/small", filepath.Join(root, "c/link"))); err != nil {
		t.Fatal(err)
	}
	return root, recipe{roots: []string{root}, maxBytes: 1 << 20, maxFile: 1 << 19, maxNames: 100}
}

// listing is what lies below root: types, permissions, and content.
func listing(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
		switch d.Type() {
		case 0:
			data, err := os.ReadFile(name)
			out[rel] = "file " + string(data)
			return err
		case fs.ModeSymlink:
			target, err := os.Readlink(name)
			out[rel] = "link " + target
			return err
		}
		out[rel] = "dir"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPulledImageEqualsItsSource(t *testing.T) {
	t.Parallel()
	source, r := sample(t)
	blobs, tmp, unpacked := t.TempDir(), t.TempDir(), t.TempDir()
	img, err := build(t.Context(), []recipe{r, {roots: []string{filepath.Join(source, "absent")}}}, blobs, tmp)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := serve(t.Context(), img, blobs, &link.Link{})
	if err != nil {
		t.Fatal(err)
	}
	before := srv.line.Stats()
	if err := errors.Join(srv.pull(t.Context(), unpacked, tmp), srv.close()); err != nil {
		t.Fatal(err)
	}
	want := listing(t, source)
	delete(want, "a/long")    // longer than maxFile
	delete(want, "c/private") // not for everybody
	if d := cmp.Diff(want, listing(t, filepath.Join(unpacked, source))); d != "" {
		t.Errorf("unpacked (-source +image):\n%s", d)
	}
	if got := srv.line.Stats().Since(before); got.Requests != 4 || got.Bytes < img.compressed {
		t.Errorf("a pull of manifest, config and 2 layers of %d bytes took %+v", img.compressed, got)
	}
	if want := strings.TrimPrefix(filepath.Join(source, "a/b/text"), "/"); img.pick != want {
		t.Errorf("picked %q, not %q", img.pick, want)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestRecipeLimits(t *testing.T) {
	t.Parallel()
	source, r := sample(t)
	for _, tc := range []struct {
		name  string
		limit func(*recipe)
		want  func(contents) bool
	}{
		{"names", func(r *recipe) { r.maxNames = 2 }, func(c contents) bool { return c.names >= 2 && c.names < 6 }},
		{"bytes", func(r *recipe) { r.maxBytes = 100 }, func(c contents) bool { return c.bytes <= 100 }},
		{"file", func(r *recipe) { r.maxFile = 100 }, func(c contents) bool { return c.bytes <= 100 && c.pick == "" }},
		{"first", func(r *recipe) {
			r.first, r.maxNames = []string{filepath.Join(source, "a/b/text")}, 1
		}, func(c contents) bool { return c.bytes == 12000 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := r
			tc.limit(&r)
			if c, err := r.write(t.Context(), io.Discard); err != nil || !tc.want(c) {
				t.Errorf("%+v %v", c, err)
			}
		})
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	t.Parallel()
	_, r := sample(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tmp := t.TempDir()
	if _, err := build(ctx, []recipe{r}, t.TempDir(), tmp); !errors.Is(err, context.Canceled) {
		t.Errorf("build: %v", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	var out bytes.Buffer
	s := &show{Options: Options{Out: &out}, img: &image{contents: contents{names: 7000, pick: "usr/share/words"}, compressed: 80e6}}
	lazy := times{ready: 310 * ms, first: 400 * ms, whole: 410 * ms, listed: 500 * ms, ran: 640 * ms, wire: link.Stats{Requests: 11, Bytes: 2e6}, sum: "x"}
	full := times{ready: 8910 * ms, first: 8910 * ms, whole: 8910 * ms, listed: 9000 * ms, ran: 9010 * ms, wire: link.Stats{Requests: 5, Bytes: 80e6}, sum: "x"}
	if err := s.report(lazy, full); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"",
		"                                           peel mount     pull + unpack",
		"                    ready to use after         0.31 s            8.91 s",
		"            first byte of a file after         0.40 s            8.91 s",
		"                      words read after         0.41 s            8.91 s",
		"               every name listed after         0.50 s            9.00 s",
		"   the image's own sha256sum run after         0.64 s            9.01 s",
		"                               fetched   2 MB (2.5 %)   80 MB (100.0 %)",
		"                              requests             11                 5",
		"",
	}, "\n")
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("table (-want +got):\n%s\n%s", d, out.String())
	}
}
