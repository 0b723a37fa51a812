package ztoc

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// vectorIndex is the SOCI index of a tag, however it is bound.
func vectorIndex(t *testing.T, tag string) (*Index, []byte) {
	t.Helper()
	raw := readVector(t, vectorTag(t, tag).Digest)
	var list ocispec.Index
	readVectorJSON(t, raw, &list)
	for _, m := range list.Manifests {
		if m.Annotations[AnnotationManifestDigest] != "" {
			raw = readVector(t, m.Digest)
		}
	}
	x, err := ParseIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	return x, raw
}

// TestVectorsIndex reads what soci wrote, and writes the same.
func TestVectorsIndex(t *testing.T) {
	t.Parallel()
	if noVectors(t) {
		return
	}
	image := vectorTag(t, "gz")
	tests := []struct {
		tag     string
		version int
		subject *ocispec.Descriptor
	}{
		{"soci-v1", 1, &ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}},
		{"soci-v2", 2, nil},
	}
	for _, test := range tests {
		t.Run(test.tag, func(t *testing.T) {
			t.Parallel()
			x, raw := vectorIndex(t, test.tag)
			if x.Version != test.version || x.BuildTool != "AWS SOCI CLI v0.2" || len(x.Layers) != 3 || x.Prefetch != nil {
				t.Errorf("index %+v", x)
			}
			if d := cmp.Diff(test.subject, x.Subject); d != "" {
				t.Error(d)
			}
			var m ocispec.Manifest
			readVectorJSON(t, readVector(t, image.Digest), &m)
			for _, l := range m.Layers {
				found, ok := x.Layer(l.Digest)
				if !ok || found.MediaType != l.MediaType || found.SpanSize != 1<<20 || found.DisableXattrs {
					t.Errorf("layer %v is %+v", l.Digest, found)
				}
			}
			again, d, err := x.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if d.ArtifactType != MediaTypeIndexV2 || d.Size != int64(len(again)) || d.Digest.Validate() != nil {
				t.Errorf("descriptor %+v", d)
			}
			if test.version == 2 && !bytes.Equal(raw, again) {
				t.Errorf("written as %s\nnot as %s", again, raw)
			}
		})
	}
}

// TestVectorsDecode reads the zTOCs that soci wrote, and writes the same bytes.
func TestVectorsDecode(t *testing.T) {
	t.Parallel()
	if noVectors(t) {
		return
	}
	x, _ := vectorIndex(t, "soci-v1")
	for _, l := range x.Layers {
		t.Run(l.Digest.Encoded()[:12], func(t *testing.T) {
			t.Parallel()
			raw := readVector(t, l.TOC.Digest)
			toc, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if toc.Version != "0.9" || toc.Compression != Gzip || toc.SpanSize != l.SpanSize || len(toc.Files) == 0 {
				t.Errorf("zTOC %q of %v, spans of %d, %d entries", toc.Version, toc.Compression, toc.SpanSize, len(toc.Files))
			}
			again, err := toc.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(raw, again) {
				t.Error("it is written otherwise")
			}
			twice, err := Decode(again)
			if err != nil {
				t.Fatal(err)
			}
			if d := same(toc, twice); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestVectorsBuild makes the zTOCs of the vectors' layers: soci's bytes.
func TestVectorsBuild(t *testing.T) {
	t.Parallel()
	if noVectors(t) {
		return
	}
	x, _ := vectorIndex(t, "soci-v2")
	for _, l := range x.Layers {
		t.Run(l.Digest.Encoded()[:12], func(t *testing.T) {
			t.Parallel()
			raw := readVector(t, l.TOC.Digest)
			want, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			blob := readVector(t, l.Digest)
			z, err := gzip.NewReader(bytes.NewReader(blob))
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			checkSpans(t, want, blob, content)
			got, err := Build(t.Context(), bytes.NewReader(blob), BuildOptions{SpanSize: l.SpanSize, BuildTool: want.BuildTool})
			if err != nil {
				t.Fatal(err)
			}
			if d := same(want, got); d != "" {
				t.Error(d)
			}
			again, err := got.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(raw, again) {
				t.Error("it is written otherwise")
			}
		})
	}
}
