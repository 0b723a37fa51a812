package fs

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// The images of this test have three names, so that layers meet all the time.

func randomName(r *rand.Rand) string {
	name := ""
	for range 1 + r.IntN(3) {
		name = path.Join(name, string(rune('a'+r.IntN(3))))
	}
	return name
}

// randomLayer returns headers, each name at most once; tidy says that parents
// are described, before their children.
func randomLayer(r *rand.Rand, addr int64) (hs []*layer.Header, tidy bool) {
	seen := make(map[string]bool)
	described := r.IntN(3) > 0
	add := func(h layer.Header) {
		if seen[h.Name] {
			return
		}
		seen[h.Name] = true
		h.MtimeSec = addr + int64(len(hs)) // tells entries apart
		hs = append(hs, &h)
	}
	for range r.IntN(7) {
		name := randomName(r)
		if described {
			for i := range name {
				if name[i] == '/' {
					add(layer.Header{Name: name[:i], Mode: typeDir | 0o700})
				}
			}
		}
		switch r.IntN(8) {
		case 0:
			add(layer.Header{Name: path.Join(path.Dir(name), ".wh."+path.Base(name)), Mode: 0o100000})
		case 1:
			add(layer.Header{Name: path.Join(name, ".wh..wh..opq"), Mode: 0o100000})
		case 2:
			add(layer.Header{Name: name, Mode: typeSymlink | 0o777, Link: cmp.Or(randomName(r), "a")})
		case 3:
			add(layer.Header{Name: name, Hardlink: true, Link: randomName(r)})
		case 4, 5:
			add(layer.Header{Name: name, Mode: typeDir | 0o755})
		default:
			add(layer.Header{Name: name, Mode: 0o100644, Size: 1, Addr: addr + int64(len(hs))})
		}
	}
	return hs, described
}

func indexOf(hs []*layer.Header, i int) (*layer.Index, error) {
	b := layer.NewBuilder()
	for _, h := range hs {
		if err := b.Add(h); err != nil {
			return nil, err
		}
	}
	const size = 1 << 20
	blob := digest.FromString(fmt.Sprint("layer ", i))
	info := layer.InfoInput{Blob: blob, BlobSize: size, AddrSize: size, Format: layer.FormatTar, Trust: layer.Proved}
	return b.Index(info, layer.Cut{
		Spans: []layer.Span{{Len: size, CLen: size, Chunks: flat.Range{Count: 1}}}, Chunks: []layer.Chunk{{Len: size}},
	})
}

// TestLookSaysWhatMergeSays: whatever is shown before all layers have come is
// in the merged tree, the same.
func TestLookSaysWhatMergeSays(t *testing.T) {
	t.Parallel()
	const images = 20_000
	shown, streamed := 0, 0
	r := rand.New(rand.NewPCG(1, 2))
	for range images {
		var layers [][]*layer.Header
		var indexes []*layer.Index
		tidy := make([]bool, 3)
		for i := range tidy {
			var hs []*layer.Header
			hs, tidy[i] = randomLayer(r, int64(1000*i))
			x, err := indexOf(hs, i)
			if err != nil {
				break // as Stream would end
			}
			layers, indexes = append(layers, hs), append(indexes, x)
		}
		merged, err := tree.Merge(indexes)
		if err != nil {
			continue // a hard link to nothing
		}
		n, k := partly(t, r, layers, indexes, tidy, merged)
		shown, streamed = shown+n, streamed+k
		if t.Failed() {
			return
		}
	}
	if shown < images || streamed < images/4 {
		t.Errorf("only %d paths were shown, %d of them of streamed layers: the test tests nothing", shown, streamed)
	}
}

// partly looks at an image of which some layers are not known, and reports how
// much it showed.
func partly(t *testing.T, r *rand.Rand, layers [][]*layer.Header, indexes []*layer.Index, tidy []bool, merged *tree.Tree) (shown, streamed int) {
	t.Helper()
	e := &Early{layers: make([]earlyLayer, len(layers))}
	for i, hs := range layers {
		if r.IntN(2) == 0 {
			e.layers[i] = newEarlyLayer(indexes[i], nil)
			continue
		}
		if !tidy[i] {
			continue // later entries may act through symlinks of lower layers, see semantics.md
		}
		l := &e.layers[i]
		l.headers = make(map[string]*layer.Header)
		for _, h := range hs {
			l.add(h.Name, h)
		}
		if l.odd {
			continue
		}
		*l = earlyLayer{headers: make(map[string]*layer.Header)}
		for _, h := range hs[:r.IntN(len(hs)+1)] {
			l.add(h.Name, h)
		}
	}
	for range 20 {
		name := randomName(r)
		s := e.look(name, len(e.layers))
		row, err := merged.Walk(name)
		switch {
		case s.state == absent && err == nil:
			t.Errorf("%s is said to be absent", name)
		case s.state != present:
			continue
		case err != nil:
			t.Errorf("%s is shown: %v", name, err)
		case !same(merged, row, s.tree()):
			t.Errorf("%s: shown %+v, is %+v", name, s.tree().Inodes[0], merged.Inodes[row])
		case s.isDir() && merged.Inodes[row].MtimeSec != s.tree().Inodes[0].MtimeSec:
			t.Errorf("directory %s: shown %+v, is %+v", name, s.tree().Inodes[0], merged.Inodes[row])
		}
		if shown++; s.header != nil {
			streamed++
		}
		if t.Failed() {
			for i, hs := range layers {
				t.Logf("layer %d, known %t, %d headers:", i, e.layers[i].index != nil, len(e.layers[i].headers))
				for _, h := range hs {
					t.Logf("  %+v", *h)
				}
			}
			return shown, streamed
		}
	}
	return shown, streamed
}

// TestStreamedAnew: a pass that begins anew takes back what it has shown.
func TestStreamedAnew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		look   bool
		failed bool
	}{{"nothing was shown", false, false}, {"something was shown", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			known := &Image{Manifest: &manifest.Image{Layers: []ocispec.Descriptor{{Digest: digest.FromString("blob")}}}}
			opening, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := &Early{layers: make([]earlyLayer, 1), known: known, cancel: cancel, wanted: map[string]int{}, paths: map[string]*earlyNode{}, changed: make(chan struct{})}
			e.layers[0].headers = make(map[string]*layer.Header)
			w := &earlyWatcher{early: e}
			w.Staged(100)
			w.Header(&layer.Header{Name: "./a", Mode: 0o100644})
			if tt.look {
				if n, err := e.find(t.Context(), rootID, "a"); err != nil || n.path != "a" {
					t.Fatal(n, err)
				}
			}
			w.Staged(50)
			if (opening.Err() != nil) != tt.failed {
				t.Errorf("the opening: %v", opening.Err())
			}
			if _, _, err := e.at(rootID); (err != nil) != tt.failed {
				t.Error(err)
			}
		})
	}
}
