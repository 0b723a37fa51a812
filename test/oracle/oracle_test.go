//go:build linux

package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// Time in a table of contents may be rounded; in these forms it is not.
func clock(tag string) testkit.Clock {
	if tag == testkit.Mixed || tag == testkit.Skopeo || testkit.Form(tag).Indexed() {
		return testkit.WholeSeconds
	}
	return testkit.Exact
}

func TestVectors(t *testing.T) {
	t.Parallel()
	vectors := filepath.Join("..", "..", "..", "shared", "vectors")
	want, err := testkit.ReadListing(filepath.Join(vectors, "tricky.expected.jsonl"))
	if err != nil {
		t.Logf("the test vectors are not here, only generated images are compared: %v", err)
		return
	}
	layout := filepath.Join(vectors, "tricky")
	tags := layoutTags(t, layout)
	if len(tags) < 8 {
		t.Fatalf("%s has only the tags %v", layout, tags)
	}
	reg := testkit.NewRegistry(t)
	for _, tag := range tags {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			reg.Push(t, layout, tag, "vectors/tricky")
			compare(t, reg.Ref("vectors/tricky", tag), tag, want)
		})
	}
}

// layoutTags lists the tags of a layout but those for SOCI.
func layoutTags(t *testing.T, layout string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, m := range index.Manifests {
		if tag := m.Annotations[ocispec.AnnotationRefName]; !strings.HasPrefix(tag, "soci") {
			tags = append(tags, tag)
		}
	}
	return tags
}

func TestDebian(t *testing.T) {
	t.Parallel()
	for _, s := range testkit.Debian(t) {
		reg := testkit.NewRegistry(t)
		for _, tag := range s.Tags {
			t.Run(s.Name+"/"+tag, func(t *testing.T) {
				t.Parallel()
				reg.Push(t, s.Layout, tag, s.Name)
				compare(t, reg.Ref(s.Name, tag), tag, s.Expected)
			})
		}
	}
}

// compare mounts ref, reads here and there while everything is cold, then
// everything, and compares. What was read cold must be part of what is right.
func compare(t *testing.T, ref, tag string, want []testkit.Row) {
	t.Helper()
	// A second mount comes from the cache, which knows three kinds of layers.
	twice := []testkit.Form{testkit.Gzip, testkit.StargzMin, testkit.ZstdChunked}
	clock := clock(tag)
	p := testkit.NewPeel(t)
	root := p.Mount(ref)
	parts := readAtRandom(t, root, want)
	got, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range testkit.Differences(want, got, clock) {
		t.Error(d)
	}
	for _, part := range parts {
		part.check(t)
	}
	p.Umount(root)
	if !slices.Contains(twice, testkit.Form(tag)) {
		return
	}
	again := p.Mount(ref)
	if got, err = testkit.List(again); err != nil {
		t.Fatal(err)
	}
	for _, d := range testkit.Differences(want, got, clock) {
		t.Errorf("second mount: %s", d)
	}
}

// A part is a piece of a file, read before the file was.
type part struct {
	name string
	off  int64
	data []byte
}

func readAtRandom(t *testing.T, root string, rows []testkit.Row) []part {
	t.Helper()
	const files, reads = 12, 6
	rng := rand.New(rand.NewPCG(1, 2))
	big := slices.DeleteFunc(slices.Clone(rows), func(r testkit.Row) bool { return r.Type != "file" || *r.Size < 50_000 })
	if len(big) == 0 {
		t.Fatal("the image has no large file")
	}
	var parts []part
	for range files {
		r := big[rng.IntN(len(big))]
		name := filepath.Join(root, r.Path)
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for range reads {
			p := part{name: name, off: rng.Int64N(*r.Size)}
			p.data = make([]byte, min(1+rng.Int64N(100_000), *r.Size-p.off))
			if n, err := f.ReadAt(p.data, p.off); err != nil {
				t.Fatalf("%s: %d of %d bytes at %d: %v", r.Path, n, len(p.data), p.off, err)
			}
			parts = append(parts, p)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return parts
}

func (p part) check(t *testing.T) {
	t.Helper()
	whole, err := os.ReadFile(p.name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(whole[p.off:p.off+int64(len(p.data))], p.data) {
		t.Errorf("%s: %d bytes at %d, read cold, are not those of the file", p.name, len(p.data), p.off)
	}
}

// TestWithoutFUSE compares what ls, cat and stat tell with the same truth.
func TestWithoutFUSE(t *testing.T) {
	t.Parallel()
	s := testkit.Debian(t)[0]
	reg := testkit.NewRegistry(t)
	for _, tag := range []string{"esgz", "zst"} {
		reg.Push(t, s.Layout, tag, s.Name)
		p := testkit.NewPeel(t)
		ref := reg.Ref(s.Name, tag)
		seen := names(t, p, ref)
		for _, r := range s.Expected {
			if !seen[r.Path] && r.Path != "/" {
				t.Errorf("%s: ls -R does not show %q", tag, r.Path)
			}
			delete(seen, r.Path)
		}
		for name := range seen {
			t.Errorf("%s: ls -R shows %q", tag, name)
		}
		i := slices.IndexFunc(s.Expected, func(r testkit.Row) bool { return r.Type == "file" && *r.Size > 2_000_000 })
		if i < 0 {
			t.Fatal("the image has no large file")
		}
		big := s.Expected[i]
		out := filepath.Join(t.TempDir(), "out")
		if err := os.WriteFile(out, []byte(p.Must("cat", ref+":"+big.Path).Stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		if sum, err := testkit.Sum(out); err != nil || sum != big.SHA256 {
			t.Errorf("%s: cat %s has digest %s, want %s (%v)", tag, big.Path, sum, big.SHA256, err)
		}
	}
}

// names is what ls -R --json lists, by path.
func names(t *testing.T, p *testkit.Peel, ref string) map[string]bool {
	t.Helper()
	var rows []struct{ Path string }
	out := p.Must("ls", "-R", "-a", "--json", ref).Stdout
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("ls --json: %v\n%.300s", err, out)
	}
	seen := map[string]bool{}
	for _, r := range rows {
		seen["/"+strings.TrimPrefix(r.Path, "/")] = true
	}
	if len(seen) != len(rows) {
		t.Error(fmt.Errorf("ls -R lists %d paths, %d of them different", len(rows), len(seen)))
	}
	return seen
}
