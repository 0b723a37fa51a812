package local

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/manifest"
)

func FuzzScan(f *testing.F) {
	f.Add([]byte{})
	f.Add(pack(f, single(f, layerOf(f, "x"))...))
	f.Add(pack(f, entry{"a", "b", tar.TypeSymlink}, entry{"b", "a", tar.TypeSymlink}, entry{"c", "d/../a", tar.TypeLink}))
	f.Add(pack(f, entry{name: "../a", content: "x"}, entry{name: string(bytes.Repeat([]byte("x"), 300))}))
	f.Fuzz(func(t *testing.T, p []byte) {
		p = bytes.Clone(p)
		for b := range slices.Chunk(p, 512) {
			if len(b) == 512 && string(b[257:262]) == "ustar" {
				checksum(b) // or hardly any header would be read
			}
		}
		found, err := scan(t.Context(), bytes.NewReader(p), int64(len(p)))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		for name := range found {
			if filepath.IsLocal(name) != (name != "" && name[0] != '/') {
				t.Errorf("%q leads out", name)
			}
			at, m, err := found.find(name)
			if err != nil {
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%q: %v", name, err)
				}
				continue
			}
			if m.kind != regular || m.off < 0 || m.size < 0 || m.off+m.size > int64(len(p)) || found[at] != m {
				t.Errorf("%q is %q: %+v", name, at, m)
			}
		}
	})
}

// files is a folder in memory.
type files map[string][]byte

func (f files) open(name string) (*file, error) {
	cleaned, wrong := clean(name)
	p, ok := f[cleaned]
	if wrong != "" || !ok {
		return nil, fs.ErrNotExist
	}
	return memory(cleaned, p), nil
}

func (f files) folders() ([]string, error) {
	var names []string
	for name := range f {
		names = append(names, filepath.Dir(name))
	}
	return names, nil
}

func (f files) Close() error { return nil }

// FuzzDocker opens places whose documents are anything.
func FuzzDocker(f *testing.F) {
	layer := layerOf(f, "x")
	id := idOf("top")
	legacy := old("top", "", layer)
	f.Add([]byte(encoded(f, []saved{{Config: "config", RepoTags: []string{"a:1"}, Layers: []string{"layer", "zipped"}}})), []byte(configFor(f, layer, layer)), []byte{}, []byte{})
	f.Add([]byte(`[{"Config":"config","Layers":["x"],"LayerSources":{"sha256:`+id+`":{"digest":"sha256:`+id+`","urls":["x"]}}}]`), []byte(`{"rootfs":{"diff_ids":["sha256:`+id+`"]}}`), []byte{}, []byte{})
	f.Add([]byte{}, []byte{}, []byte(`{"a":{"b":"`+id+`"}}`), []byte(legacy[2].content))
	zipped := gz(f, []byte(layer))
	f.Fuzz(func(t *testing.T, manifestJSON, config, repositories, v1 []byte) {
		in := files{"config": config, "layer": []byte(layer), "zipped": zipped}
		for name, p := range map[string][]byte{manifestFile: manifestJSON, repositoriesFile: repositories, id + "/json": v1} {
			if len(p) > 0 {
				in[name] = p
			}
		}
		in[id+"/layer.tar"] = zipped
		d, err := openDocker(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		for i, im := range d.images {
			picked, raw, err := d.pick(t.Context(), im.called(i)[0])
			if err == nil {
				checkPicked(t, d, picked.Desc, raw)
			}
		}
	})
}

// checkPicked finds every document and layer of a manifest that was picked.
func checkPicked(t *testing.T, from layout, desc ocispec.Descriptor, raw []byte) {
	t.Helper()
	if digest.FromBytes(raw) != desc.Digest || int64(len(raw)) != desc.Size {
		t.Errorf("%v is not of %s", desc, raw)
	}
	m, _, err := manifest.ReadManifest(desc, raw)
	if err != nil {
		return // a list, a foreign type
	}
	for _, d := range append(m.Layers, m.Config) {
		f, err := from.find(d.Digest)
		if err != nil {
			if len(d.URLs) == 0 {
				t.Errorf("%s: %v", d.Digest, err)
			}
			continue
		}
		if f.size != d.Size {
			t.Errorf("%s has %d bytes, want %d", d.Digest, f.size, d.Size)
		}
	}
}

// FuzzLayout opens layouts whose index is anything.
func FuzzLayout(f *testing.F) {
	l := newTree(f)
	d := l.image("x", "amd64")
	nested := l.list(annotated(d, refName, "deep"))
	l.add(d, refName, "x").add(on(d, "amd64"), containerdName, "docker.io/library/a:b").add(nested, refName, "sha256-"+d.Digest.Encoded())
	l.places()
	f.Add([]byte(l.members[ocispec.ImageIndexFile]), "x")
	f.Add([]byte(l.members[ocispec.ImageIndexFile]), "deep")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"`+string(nested.Digest)+`"},null]}`), "")
	f.Add([]byte(`{"schemaVersion":2}`), "@"+string(d.Digest))
	f.Fuzz(func(t *testing.T, index []byte, within string) {
		in := files{}
		for name, content := range l.members {
			in[name] = []byte(content)
		}
		in[ocispec.ImageIndexFile] = index
		o, err := openOCI(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		all, err := o.entries(context.Background())
		for _, e := range all {
			if err == nil && len(e.Names) == 0 {
				t.Errorf("%v has no name", e.Desc)
			}
		}
		if e, raw, err := o.pick(t.Context(), within); err == nil && digest.FromBytes(raw) != e.Desc.Digest && e.Desc.Digest.Algorithm() == digest.SHA256 {
			t.Errorf("%v is not of %s", e.Desc, raw)
		}
		if _, err := o.referrers(t.Context(), d.Digest); err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrVerify) {
			t.Errorf("%v", err)
		}
	})
}
