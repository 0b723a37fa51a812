package layer

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// expected is a line of tricky.expected.jsonl.
type expected struct {
	Path, Type, Target, SHA256 string
	Size                       int64
}

// TestVectors reads the files of every form of an image that other tools made.
func TestVectors(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "shared", "vectors")
	lines, err := os.ReadFile(filepath.Join(root, "tricky.expected.jsonl"))
	if err != nil {
		t.Logf("no vectors here (%v): the generated layers of other tests must do", err)
		return
	}
	want := map[string]string{}
	for line := range bytes.Lines(lines) {
		var e expected
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == "file" {
			want[e.Path] = e.SHA256
		}
	}
	var index ocispec.Index
	readJSON(t, filepath.Join(root, "tricky", "index.json"), &index)
	for _, d := range index.Manifests {
		tag := d.Annotations[ocispec.AnnotationRefName]
		if strings.HasPrefix(tag, "soci") {
			continue
		}
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			var m ocispec.Manifest
			readJSON(t, vector(root, d.Digest), &m)
			got := map[string]string{}
			for _, l := range m.Layers {
				for path, in := range vectorLayer(t, root, l) {
					if in.Mode == 0 {
						delete(got, path)
					} else if in.Mode&typeMask == typeRegular && want[path] != "" {
						got[path] = in.sum
					}
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

type summed struct {
	Inode
	sum string
}

func vector(root string, d digest.Digest) string {
	return filepath.Join(root, "tricky", "blobs", d.Algorithm().String(), d.Encoded())
}

func readJSON(t *testing.T, path string, to any) {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(p, to); err != nil {
		t.Fatal(err)
	}
}

// vectorLayer indexes a layer and returns its inodes with their content's sums.
func vectorLayer(t *testing.T, root string, d ocispec.Descriptor) map[string]summed {
	t.Helper()
	p, err := os.ReadFile(vector(root, d.Digest))
	if err != nil {
		t.Fatal(err)
	}
	src := &blob{bytes: p}
	x, err := ReadIndex(t.Context(), src, d)
	if errors.Is(err, ErrPlain) {
		if src.requests.Load() != 0 {
			t.Errorf("%d requests for nothing", src.requests.Load())
		}
		x, err = Stream(t.Context(), src, d, "", StreamOptions{Stage: new(stage)})
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := src.requests.Load(); n != 1 {
		t.Errorf("%d requests for the index", n)
	}
	if _, err := Decode(x.Encode()); err != nil {
		t.Error(err)
	}
	space := addresses(t, x, src)
	found := map[string]summed{}
	for path, in := range files(x) {
		s := summed{Inode: in}
		if in.Mode&typeMask == typeRegular {
			s.sum = hexSum(content(x, in, space))
		}
		found[path] = s
	}
	return found
}
