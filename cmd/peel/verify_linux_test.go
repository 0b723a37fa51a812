package main

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/remote"
)

// indexed is an image with an index of each layer, to be told lies about.
type indexed struct {
	reg    *testkit.Registry
	client *remote.Client
	layers []testkit.Layer
	packed [][]byte // what push made, by layer
}

// newIndexed pushes an image of two layers.
func newIndexed(t *testing.T) *indexed {
	t.Helper()
	var big []testkit.Entry
	for i := range 12 {
		big = append(big, testkit.File("big"+string('a'+rune(i)), halfNoise(uint64(i), 700_000)))
	}
	f := &indexed{reg: testkit.NewRegistry(t), layers: []testkit.Layer{
		testkit.Encode(t, testkit.Gzip, big...),
		testkit.Encode(t, testkit.Gzip, testkit.Dir("etc"), testkit.File("etc/name", []byte("peel")), testkit.File("etc/other", []byte("more")).Xattr("user.x", "y")),
	}}
	f.reg.Publish(t, "true", "v1", f.layers...)
	var err error
	if f.client, err = remote.New(remote.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.client.Close)
	p := testkit.NewPeel(t)
	var said indexesReport
	if err := json.Unmarshal([]byte(p.Must("index", "push", "--json", f.reg.Ref("true", "v1")).Stdout), &said); err != nil {
		t.Fatal(err)
	}
	for _, l := range said.Layers {
		d := l.descriptor()
		r, err := f.client.Open(f.named(t, "true"), d).ReadRange(t.Context(), 0, d.Size)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		f.packed = append(f.packed, raw)
	}
	return f
}

// halfNoise is data that is compressed to half its size, in blocks that refer
// to the ones before.
func halfNoise(seed uint64, n int) []byte {
	b := testkit.Noise(seed, n)
	for i := range b {
		b[i] = "0123456789abcdef"[b[i]&15]
	}
	return b
}

func (f *indexed) named(t *testing.T, repo string) reference.Named {
	t.Helper()
	ref, err := reference.ParseNormalizedNamed(f.reg.Host() + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// unpacked is the index of a layer, to be changed.
func (f *indexed) unpacked(t *testing.T, i int) *layer.Index {
	t.Helper()
	x, err := layer.Unpack(f.packed[i], f.layers[i].Desc, layer.Claim{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// attach publishes the image as repo:v1 with these blobs for indexes, and
// returns its name.
func (f *indexed) attach(t *testing.T, repo string, blobs [][]byte) string {
	t.Helper()
	top := f.reg.Publish(t, repo, "v1", f.layers...)
	repository := f.client.Repository(f.named(t, repo))
	x := manifest.Indexes{Subject: &top, Layers: map[digest.Digest]ocispec.Descriptor{}}
	push := func(d ocispec.Descriptor, data []byte) {
		t.Helper()
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		if err := f.client.PushBlob(t.Context(), f.named(t, repo), d, open); err != nil {
			t.Fatal(err)
		}
	}
	push(ocispec.DescriptorEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
	for i, b := range blobs {
		d := ocispec.Descriptor{MediaType: manifest.LayerIndexType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		push(d, b)
		x.Layers[f.layers[i].Desc.Digest] = d
	}
	raw, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository.PutManifest(t.Context(), raw, ocispec.MediaTypeImageManifest, ""); err != nil {
		t.Fatal(err)
	}
	return f.reg.Ref(repo, "v1")
}

// inode finds a file's inode by its name.
func inode(t *testing.T, x *layer.Index, name string) *layer.Inode {
	t.Helper()
	for _, e := range x.Entries {
		if x.Name(e) == name {
			return &x.Inodes[e.Inode]
		}
	}
	t.Fatalf("no %s", name)
	return nil
}

// lie is what can be wrong with an index. One that is coherent is believed
// until somebody verifies it; another is not used at all.
type lie struct {
	name   string
	layer  int
	change func(t *testing.T, x *layer.Index)
	blob   func(f *indexed) []byte // instead of change
	found  string                  // what verify says
	unused bool
}

func lies() []lie {
	return []lie{
		{name: "mode", layer: 1, found: `"etc/name": mode`, change: func(t *testing.T, x *layer.Index) { inode(t, x, "name").Mode ^= 0o111 }},
		{name: "bit of a checkpoint", found: "span 2", change: func(_ *testing.T, x *layer.Index) { x.Checkpoints[2].Bit ^= 3 }},
		{name: "window", found: "span", change: func(_ *testing.T, x *layer.Index) {
			for i := range x.Windows {
				x.Windows[i] ^= 0x55
			}
		}},
		{name: "another span's window", found: "span", change: func(_ *testing.T, x *layer.Index) {
			x.Checkpoints[2].Window, x.Checkpoints[3].Window = x.Checkpoints[3].Window, x.Checkpoints[2].Window
		}},
		{name: "digest", found: "span 1", change: func(_ *testing.T, x *layer.Index) { x.Chunks[x.Spans[1].Chunks.First].SHA256[0] ^= 1 }},
		{name: "overlapping spans", unused: true, found: "span 1", change: func(_ *testing.T, x *layer.Index) { x.Spans[1].Addr -= 100 }},
		{name: "another layer's", layer: 1, unused: true, found: "another layer", blob: func(f *indexed) []byte { return f.packed[0] }},
		{name: "truncated", unused: true, found: "not used", blob: func(f *indexed) []byte { return f.packed[0][:len(f.packed[0])/2] }},
		{name: "garbage", unused: true, found: "not used", blob: func(*indexed) []byte { return []byte("no index") }},
	}
}

// TestLies: whatever an index says, no wrong byte of a file is shown, and
// verify tells what is wrong.
func TestLies(t *testing.T) {
	t.Parallel()
	f := newIndexed(t)
	want := listed(t, testkit.NewPeel(t).Mount(f.reg.Ref("true", "v1")))
	for i, l := range lies() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			blobs := slices.Clone(f.packed)
			if l.blob != nil {
				blobs[l.layer] = l.blob(f)
			} else {
				x := f.unpacked(t, l.layer)
				l.change(t, x)
				blobs[l.layer] = x.Pack()
			}
			ref := f.attach(t, "lie-"+strconv.Itoa(i), blobs)
			p := testkit.NewPeel(t)
			l.verify(t, p, "index", "verify", ref)
			if left := p.TemporaryFiles(); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			l.read(t, p.Mount(ref), want)
			if inspected := p.Must("inspect", "--json", ref).Stdout; strings.Contains(inspected, "not used") != l.unused {
				t.Errorf("inspect says %s", inspected)
			}
			if l.unused {
				p.Must("verify", ref)
			} else {
				l.verify(t, p, "verify", ref)
			}
			proved := testkit.NewPeel(t).Mount(ref, "--require", "proved")
			if d := cmp.Diff(want, listed(t, proved)); d != "" {
				t.Errorf("--require proved: %s", d)
			}
		})
	}
}

// verify runs a command that has to find the lie.
func (l *lie) verify(t *testing.T, p *testkit.Peel, args ...string) {
	t.Helper()
	if r := p.Run(args...); r.Code != testkit.Unverified || !strings.Contains(r.Stdout, l.found) {
		t.Errorf("%v: %+v, want %q", args, r, l.found)
	}
}

// read reads all files: what can be read is right.
func (l *lie) read(t *testing.T, root string, want []testkit.Row) {
	t.Helper()
	failed := 0
	for _, w := range want {
		if w.SHA256 == "" {
			continue
		}
		got, err := testkit.Sum(filepath.Join(root, w.Path))
		if err != nil {
			failed++
		} else if got != w.SHA256 {
			t.Errorf("%s has other content", w.Path)
		}
	}
	if l.unused && failed > 0 {
		t.Errorf("%d files cannot be read", failed)
	}
}

func listed(t *testing.T, root string) []testkit.Row {
	t.Helper()
	rows, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
