package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// indexesOf makes up indexes of n layers.
func indexesOf(n int) Indexes {
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 5}
	x := Indexes{Subject: &subject, Layers: map[digest.Digest]ocispec.Descriptor{}}
	for i := range n {
		x.Layers[digest.FromString(fmt.Sprint("layer", i))] = ocispec.Descriptor{
			MediaType: LayerIndexType, Digest: digest.FromString(fmt.Sprint("index", i)), Size: int64(i),
		}
	}
	return x
}

// asReferrer is what a registry's list of referrers says of a manifest.
func asReferrer(t testing.TB, raw []byte) ocispec.Descriptor {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{
		MediaType: m.MediaType, ArtifactType: m.ArtifactType, Annotations: m.Annotations,
		Digest: digest.FromBytes(raw), Size: int64(len(raw)),
	}
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		layers int
		listed bool
	}{
		{"one layer", 1, true},
		{"as many as the annotation takes", maxAnnotated, true},
		{"more than that", maxAnnotated + 1, false},
		{"as many as an image has", maxLayers, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			want := indexesOf(tc.layers)
			raw, err := want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := indexesOf(tc.layers).Encode()
			if err != nil || !bytes.Equal(raw, again) {
				t.Errorf("encoded twice it differs (%v)", err)
			}
			got, err := ParseIndexes(raw)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
			listed, ok := IndexesOf(asReferrer(t, raw))
			if ok != tc.listed {
				t.Errorf("the annotation has them: %v, want %v", ok, tc.listed)
			}
			if diff := cmp.Diff(want.Layers, listed.Layers); ok && diff != "" {
				t.Error(diff)
			}
			if n := len(asReferrer(t, raw).Annotations[annotationIndexes]); n > 24<<10 {
				t.Errorf("an annotation of %d bytes", n)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	large, false1, false2 := indexesOf(1), indexesOf(1), indexesOf(1)
	for of, d := range large.Layers {
		d.Size = maxLayerIndex + 1
		large.Layers[of] = d
		d.Size, d.Digest = 1, "sha256:0"
		false1.Layers[of] = d
		false2.Layers["layer"] = d
	}
	for name, x := range map[string]Indexes{
		"no layer": {}, "too many": indexesOf(maxLayers + 1), "too large": large, "not a blob": false1, "not a layer": false2,
	} {
		if raw, err := x.Encode(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v\n%s", name, err, raw)
		}
	}
}

func TestParseIndexesRefuses(t *testing.T) {
	t.Parallel()
	raw, err := indexesOf(2).Encode()
	if err != nil {
		t.Fatal(err)
	}
	image := newStore()
	plain := image.docs[image.image(t, "linux/amd64").Digest]
	edit := func(old, with string) []byte {
		out := bytes.ReplaceAll(raw, []byte(old), []byte(with))
		if bytes.Equal(out, raw) {
			t.Fatalf("no %s in %s", old, raw)
		}
		return out
	}
	for _, tc := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"an image", plain, ErrArtifact},
		{"an index of images", []byte(`{"schemaVersion":2,"manifests":[]}`), ErrArtifact},
		{"cut off", raw[:len(raw)/2], ErrMalformed},
		{"a layer twice", edit(digest.FromString("layer0").String(), digest.FromString("layer1").String()), ErrMalformed},
		{"no digest", edit(digest.FromString("index0").String(), "sha256:12"), ErrMalformed},
		{"a false subject", edit(digest.FromString("image").String(), "image"), ErrMalformed},
		{"layers of no list", edit(`"layers":[`, `"layers":{},"other":[`), ErrMalformed},
	} {
		if x, err := ParseIndexes(tc.raw); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, %v; want %v", tc.name, x, err, tc.want)
		}
	}
	// What later versions may add is passed by.
	if x, err := ParseIndexes(edit(LayerIndexType, "application/x-other")); err != nil || len(x.Layers) != 0 {
		t.Errorf("blobs of another type: %v, %v", x, err)
	}
}

func TestIndexesOfOthers(t *testing.T) {
	t.Parallel()
	of, blob := digest.FromString("layer"), digest.FromString("index")
	for name, d := range map[string]ocispec.Descriptor{
		"another type":    {ArtifactType: "application/x", Annotations: map[string]string{annotationIndexes: fmt.Sprintf(`[[%q,%q,1]]`, of, blob)}},
		"no annotation":   {ArtifactType: IndexArtifactType},
		"an empty list":   {ArtifactType: IndexArtifactType, Annotations: map[string]string{annotationIndexes: `[]`}},
		"two members":     {ArtifactType: IndexArtifactType, Annotations: map[string]string{annotationIndexes: fmt.Sprintf(`[[%q,%q]]`, of, blob)}},
		"a negative size": {ArtifactType: IndexArtifactType, Annotations: map[string]string{annotationIndexes: fmt.Sprintf(`[[%q,%q,-1]]`, of, blob)}},
		"no digest":       {ArtifactType: IndexArtifactType, Annotations: map[string]string{annotationIndexes: fmt.Sprintf(`[[%q,"x",1]]`, of)}},
		"nothing of JSON": {ArtifactType: IndexArtifactType, Annotations: map[string]string{annotationIndexes: `[[`}},
	} {
		if x, ok := IndexesOf(d); ok {
			t.Errorf("%s: %v", name, x)
		}
	}
}

func TestIndexTag(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0a", 64)
	for d, want := range map[digest.Digest]string{
		digest.Digest("sha256:" + sum[:64]): "sha256-" + sum[:64] + ".peel",
		digest.Digest("sha512:" + sum):      "sha512-" + sum[:64] + ".peel",
	} {
		if got := IndexTag(d); got != want {
			t.Errorf("%s: %s", d, got)
		}
	}
}

// FuzzParseIndexes: no panic, and what is read can be written and read again.
func FuzzParseIndexes(f *testing.F) {
	raw, err := indexesOf(3).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(asReferrer(f, raw).Annotations[annotationIndexes]))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := ParseIndexes(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrArtifact) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("undocumented error %v", err)
			}
			x, _ = IndexesOf(ocispec.Descriptor{ArtifactType: IndexArtifactType, Annotations: map[string]string{annotationIndexes: string(raw)}})
		}
		if len(x.Layers) == 0 {
			return
		}
		out, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseIndexes(out)
		if diff := cmp.Diff(x, again); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}

// A reference to indexes means the image that they are attached to.
func TestResolveNamedIndexes(t *testing.T) {
	t.Parallel()
	var image ocispec.Descriptor
	attach := func(edit func(*ocispec.Manifest)) func(*store) ocispec.Descriptor {
		return func(s *store) ocispec.Descriptor {
			image = s.image(t, "linux/amd64", gzipLayer)
			m := s.imageManifest(t, "linux/amd64")
			m.Subject = &image
			m.Config.MediaType = SOCIIndexV1
			edit(&m)
			return s.put(t, ocispec.MediaTypeImageManifest, m)
		}
	}
	for _, tc := range []struct {
		name  string
		build func(*store) ocispec.Descriptor
		want  string // artifact type of what is named
		err   error
	}{
		{"SOCI", attach(func(*ocispec.Manifest) {}), SOCIIndexV1, nil},
		{"peel", attach(func(m *ocispec.Manifest) {
			m.ArtifactType, m.Config.MediaType = IndexArtifactType, ocispec.MediaTypeEmptyJSON
		}), IndexArtifactType, nil},
		{"without a subject", attach(func(m *ocispec.Manifest) { m.Subject = nil }), "", ErrArtifact},
		{"of a false subject", attach(func(m *ocispec.Manifest) { m.Subject = &ocispec.Descriptor{Digest: "x"} }), "", ErrArtifact},
		{"of a subject that is not there", attach(func(m *ocispec.Manifest) { m.Subject.Digest = digest.FromString("x") }), "", errdefs.ErrNotFound},
		{"an image with a subject", func(s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64", gzipLayer)
			m.Subject = &image
			image = s.put(t, ocispec.MediaTypeImageManifest, m)
			return image
		}, "", nil},
	} {
		img, s, err := resolve(t, "linux/amd64", tc.build)
		if !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
		}
		if err != nil {
			continue
		}
		if img.Desc.Digest != image.Digest || img.Top.Digest != s.tags["x"].Digest {
			t.Errorf("%s: image %s, named %s", tc.name, img.Desc.Digest, img.Top.Digest)
		}
		if tc.want == "" {
			if img.Named != nil {
				t.Errorf("%s: indexes %v", tc.name, img.Named.Desc)
			}
			continue
		}
		if img.Named == nil || img.Named.Desc.ArtifactType != tc.want || digest.FromBytes(img.Named.Raw) != img.Top.Digest {
			t.Errorf("%s: indexes %v", tc.name, img.Named)
		}
	}
}
