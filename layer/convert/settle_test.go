//go:build linux

package convert_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer/convert"
)

// jumble is a tar in which few names are used for many things, one after the
// other. Hard links have targets, be it ones that are replaced later.
func jumble(rng *rand.Rand) []testkit.Entry {
	names := []string{"a", "b", "c", "d/a", "d/b", "d/e/a", "f"}
	files := map[string]bool{} // what a hard link can be made to now
	var out []testkit.Entry
	put := func(name string, e testkit.Entry, linkable bool) {
		for f := range files {
			if f == name || len(f) > len(name) && f[:len(name)+1] == name+"/" {
				delete(files, f)
			}
		}
		if linkable {
			files[name] = true
		}
		out = append(out, e)
	}
	dirs := map[string]bool{}
	for i := range 4 + rng.IntN(12) {
		name := names[rng.IntN(len(names))]
		for _, dir := range []string{"d", "d/e"} {
			if len(name) > len(dir) && name[:len(dir)] == dir && !dirs[dir] {
				put(dir, testkit.Dir(dir), false)
				dirs[dir] = true
			}
		}
		switch rng.IntN(6) {
		case 0:
			put(name, testkit.Symlink(name, "nowhere"), false)
		case 1:
			put(name, testkit.Dir(name), false)
		case 2:
			var targets []string
			for f := range files {
				targets = append(targets, f)
			}
			slices.Sort(targets)
			if len(targets) > 0 {
				if target := targets[rng.IntN(len(targets))]; target != name {
					put(name, testkit.Hardlink(name, target), true)
				}
			}
		case 3:
			put("d", testkit.File("d", fmt.Appendf(nil, "%d", i)), true)
			dirs = map[string]bool{}
		default:
			put(name, testkit.File(name, fmt.Appendf(nil, "content %d", i)).With(func(h *tar.Header) { h.Uid = i }), true)
		}
	}
	return out
}

// TestJumble: GNU tar makes the same of a tar and of its eStargz layer.
func TestJumble(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			tarball := archive(t, jumble(rand.New(rand.NewPCG(seed, 1)))...)
			_, blob := run(t, tarball, convert.Options{Format: convert.Estargz})
			want, got := extract(t, tarball), extract(t, uncompress(t, blob))
			if d := testkit.Differences(want, got, testkit.Exact); len(d) > 0 {
				t.Errorf("%s\nthe tar was %v", d, list(t, tarball))
			}
			seen := map[string]bool{}
			for _, name := range names(t, blob) {
				name, _, _ = strings.Cut(name, " -> ")
				if name = filepath.Clean(name); seen[name] {
					t.Errorf("%s comes twice", name)
				}
				seen[name] = true
			}
		})
	}
}

func list(t *testing.T, tarball []byte) []string {
	t.Helper()
	var out []string
	tr := tar.NewReader(bytes.NewReader(tarball))
	for {
		h, err := tr.Next()
		if err != nil {
			return out
		}
		out = append(out, string(h.Typeflag)+h.Name+">"+h.Linkname)
	}
}

func extract(t *testing.T, tarball []byte) []testkit.Row {
	t.Helper()
	root := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "tar", "-x", "--recursive-unlink", "--numeric-owner", "-C", root)
	cmd.Stdin = bytes.NewReader(tarball)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s: %v", err, out, list(t, tarball))
	}
	for _, name := range []string{estargz.NoPrefetchLandmark, estargz.TOCTarName} {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if rows[i].Type == "dir" { // changed by what was made and removed in it
			rows[i].MtimeNs = nil
		}
	}
	return rows
}
