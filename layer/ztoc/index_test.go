package ztoc

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sample is an index with everything that one can have.
func sample() *Index {
	d := func(s string) digest.Digest { return digest.FromString(s) }
	toc := func(s string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: MediaTypeTOC, Digest: d(s), Size: 100}
	}
	return &Index{
		Version:   2,
		BuildTool: "tool",
		Layers: []Layer{
			{Digest: d("1"), MediaType: ocispec.MediaTypeImageLayerGzip, TOC: toc("toc 1"), SpanSize: 1 << 22},
			{Digest: d("2"), MediaType: ocispec.MediaTypeImageLayer, TOC: toc("toc 2"), SpanSize: 1 << 20, DisableXattrs: true},
			{Digest: d("1"), MediaType: ocispec.MediaTypeImageLayerGzip, TOC: toc("toc 3"), SpanSize: 1 << 22},
		},
		Prefetch: []Prefetch{
			{Digest: d("2"), List: ocispec.Descriptor{MediaType: MediaTypePrefetch, Digest: d("list"), Size: 50}},
		},
	}
}

func TestIndex(t *testing.T) {
	t.Parallel()
	x := sample()
	raw, d, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: MediaTypeIndexV2,
		Digest: digest.FromBytes(raw), Size: int64(len(raw)),
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	again, err := ParseIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x, again); diff != "" {
		t.Error(diff)
	}
	if l, ok := again.Layer(digest.FromString("1")); !ok || l.TOC.Digest != digest.FromString("toc 1") {
		t.Errorf("layer %+v", l)
	}
	if l, ok := again.Layer(digest.FromString("3")); ok {
		t.Errorf("layer %+v", l)
	}
	if _, _, err := new(Index).Encode(); !errors.Is(err, ErrFormat) {
		t.Errorf("an index without layers: %v", err)
	}
	x.BuildTool = strings.Repeat("<", maxIndex/6)
	if _, _, err := x.Encode(); !errors.Is(err, ErrFormat) {
		t.Errorf("a large index: %v", err)
	}
}

// TestParseIndex changes one thing of a good manifest at a time.
func TestParseIndex(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*ocispec.Manifest)
		want   string // of the error; empty if there is none
		layers int
	}{
		{"as it is", func(*ocispec.Manifest) {}, "", 3},
		{"no known type", func(m *ocispec.Manifest) { m.Config.MediaType = ocispec.MediaTypeImageConfig }, "its config is", 0},
		{"unknown layer", func(m *ocispec.Manifest) { m.Layers[0].MediaType = "text/plain" }, "", 2},
		{"layer of nothing", func(m *ocispec.Manifest) { m.Layers[0].Annotations = nil }, "", 2},
		{"layer's digest", func(m *ocispec.Manifest) { m.Layers[0].Annotations[AnnotationLayerDigest] = "sha256:12" }, "layer 0: it belongs", 0},
		{"digest", func(m *ocispec.Manifest) { m.Layers[1].Digest = "x" }, `layer 1: its digest is "x"`, 0},
		{"negative size", func(m *ocispec.Manifest) { m.Layers[1].Size = -1 }, "layer 1: -1 bytes", 0},
		{"large size", func(m *ocispec.Manifest) { m.Layers[1].Size = maxTOC + 1 }, "layer 1: ", 0},
		{"no span size", func(m *ocispec.Manifest) { delete(m.Layers[0].Annotations, AnnotationSpanSize) }, "", 3},
		{"odd span size", func(m *ocispec.Manifest) { m.Layers[0].Annotations[AnnotationSpanSize] = "4M" }, `span size "4M"`, 0},
		{"negative span size", func(m *ocispec.Manifest) { m.Layers[0].Annotations[AnnotationSpanSize] = "-1" }, "span size", 0},
		{"subject", func(m *ocispec.Manifest) { m.Subject = &ocispec.Descriptor{Digest: "x"} }, "its subject is", 0},
		{"negative subject", func(m *ocispec.Manifest) {
			m.Subject = &ocispec.Descriptor{Digest: digest.FromString(""), Size: -1}
		}, "its subject is", 0},
	}
	raw, _, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var m ocispec.Manifest
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			test.change(&m)
			p, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			x, err := ParseIndex(p)
			if test.want == "" {
				if err != nil || len(x.Layers) != test.layers {
					t.Errorf("index %+v, error %v", x, err)
				}
			} else if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v", err)
			}
		})
	}
	for _, p := range []string{"", "[]", "{", strings.Repeat(" ", maxIndex+1)} {
		if _, err := ParseIndex([]byte(p)); !errors.Is(err, ErrFormat) {
			t.Errorf("%.10q: error %v", p, err)
		}
	}
}
