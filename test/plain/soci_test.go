//go:build linux

package plain

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// TestSOCI: images that soci has indexed are lazy at once, and show what an
// eager unpack shows, then and after their spans have been evicted.
func TestSOCI(t *testing.T) {
	t.Parallel()
	vectors := filepath.Join("..", "..", "..", "shared", "vectors")
	want, err := testkit.ReadListing(filepath.Join(vectors, "tricky.expected.jsonl"))
	if err != nil {
		t.Logf("the test vectors are not here: %v", err)
		return
	}
	layout := filepath.Join(vectors, "tricky")
	for _, tc := range []struct {
		name string
		push []string
		tag  string
	}{
		{"the index itself", []string{"gz", "soci-v1"}, "soci-v1"},
		{"an image with a referrer", []string{"gz", "soci-v1"}, "gz"},
		{"an index bound to its image", []string{"soci-v2"}, "soci-v2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			for _, tag := range tc.push {
				reg.Push(t, layout, tag, "vectors/tricky")
			}
			proxy := testkit.NewProxy(t, reg.Host())
			p := testkit.NewPeel(t)
			ref := proxy.Ref("vectors/tricky", tc.tag)
			originsAreSOCI(t, p.Must("inspect", "--json", ref).Stdout)
			proxy.Log()
			root := p.Mount(ref)
			const index = 600_000 // bytes of the documents and zTOCs; the layers have 4 MB
			if n := testkit.Bytes(proxy.Log()); n > index {
				t.Errorf("%d bytes fetched to mount, at most %d: not lazy", n, index)
			}
			for _, d := range testkit.Differences(want, listAll(t, root), testkit.Exact) {
				t.Error(d)
			}
			gone(t, p, root)
			for _, d := range testkit.Differences(want, listAll(t, root), testkit.Exact) {
				t.Errorf("evicted: %s", d)
			}
		})
	}
}

// originsAreSOCI complains of layers that inspect does not say have an index
// by soci.
func originsAreSOCI(t *testing.T, out string) {
	t.Helper()
	var image struct{ Layers []map[string]any }
	if err := json.Unmarshal([]byte(out), &image); err != nil || len(image.Layers) == 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, l := range image.Layers {
		if !strings.Contains(strings.ToLower(fmt.Sprint(slices.Collect(maps.Values(l)))), "soci") {
			t.Errorf("layer %d: %v: the index does not come from SOCI", i, l)
		}
	}
}

// listAll lists a tree with its root.
func listAll(t *testing.T, dir string) []testkit.Row {
	t.Helper()
	rows, err := testkit.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
