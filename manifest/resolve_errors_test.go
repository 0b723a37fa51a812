package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

func TestResolveErrors(t *testing.T) {
	t.Parallel()
	object := func(v any) func(*testing.T, *store) ocispec.Descriptor {
		return func(t *testing.T, s *store) ocispec.Descriptor { return s.put(t, "", v) }
	}
	edited := func(edit func(*ocispec.Manifest)) func(*testing.T, *store) ocispec.Descriptor {
		return func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64", gzipLayer)
			edit(&m)
			return s.put(t, ocispec.MediaTypeImageManifest, m)
		}
	}
	for _, tc := range []struct {
		name  string
		build func(*testing.T, *store) ocispec.Descriptor
		want  error
		text  string
	}{
		{"unknown tag", func(*testing.T, *store) ocispec.Descriptor {
			return ocispec.Descriptor{}
		}, ErrMalformed, "digest"},
		{"other bytes than the digest's", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			s.docs[m.Digest] = []byte(strings.Repeat(" ", int(m.Size)))
			return m
		}, ErrVerify, "bytes have digest"},
		{"other size", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			m.Size++
			return m
		}, ErrVerify, "want"},
		{"child with other bytes", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			s.docs[m.Digest] = []byte(strings.Repeat(" ", int(m.Size)))
			return s.index(t, on(t, "linux/amd64", m))
		}, ErrVerify, "docker.io/test/image@sha256:"},
		{"child missing", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			delete(s.docs, m.Digest)
			return s.index(t, on(t, "linux/amd64", m))
		}, errdefs.ErrNotFound, "docker.io/test/image@sha256:"},
		{"configuration of an entry without platform missing", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64")
			delete(s.docs, m.Config.Digest)
			return s.index(t, s.put(t, ocispec.MediaTypeImageManifest, m))
		}, errdefs.ErrNotFound, "docker.io/test/image@sha256:"},
		{"child too large to ask for", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			m.Size = MaxDocument + 1
			return s.index(t, on(t, "linux/amd64", m))
		}, ErrMalformed, "want 0 to 8388608 bytes"},
		{"child's digest is none", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			m.Digest = "sha256:../../x"
			return s.index(t, on(t, "linux/amd64", m))
		}, ErrMalformed, `"sha256:../../x"`},
		{"child of another type", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			m.MediaType = dockerManifest
			return s.index(t, on(t, "linux/amd64", m))
		}, ErrMalformed, "it is called"},
		{"server's type differs", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64")
			m.MediaType = ocispec.MediaTypeImageIndex + "; charset=utf-8"
			return m
		}, ErrMalformed, `it is called "application/vnd.oci.image.index.v1+json" and says`},
		{"not JSON", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.put(t, ocispec.MediaTypeImageManifest, []byte("<html>"))
		}, ErrMalformed, "malformed document"},
		{"too large", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.put(t, ocispec.MediaTypeImageManifest, make([]byte, MaxDocument+1))
		}, ErrMalformed, "more than 8388608"},
		{"unknown type", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.put(t, "application/x-other", map[string]any{"schemaVersion": 2})
		}, ErrUnsupported, `document of type "application/x-other"`},
		{"no type and no content", object(map[string]any{"schemaVersion": 2}), ErrMalformed, "neither"},
		{"no schemaVersion", object(map[string]any{"layers": []int{}}), ErrMalformed, "schemaVersion 0"},
		{"layers and manifests", object(map[string]any{
			"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "Layers": []int{}, "manifests": []int{},
		}), ErrMalformed, "both layers and manifests"},
		{"index with layers", object(map[string]any{
			"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "layers": []int{},
		}), ErrMalformed, "an index with"},
		{"index with config", object(map[string]any{
			"schemaVersion": 2, "manifests": []int{}, "config": map[string]any{},
		}), ErrMalformed, "an index with"},
		{"manifest with manifests", object(map[string]any{
			"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "manifests": []int{},
		}), ErrMalformed, "a manifest with manifests"},
		{"manifest without config", object(map[string]any{
			"schemaVersion": 2, "layers": []int{},
		}), ErrMalformed, "no config"},
		{"layers not a list", object(map[string]any{
			"schemaVersion": 2, "config": map[string]any{}, "layers": 1,
		}), ErrMalformed, "layers: not a list"},
		{"schema 1 by version", object(map[string]any{"schemaVersion": 1}), ErrMalformed, "0 fsLayers and 0 entries"},
		{"schema 1 by layers", object(map[string]any{"schemaVersion": 2, "fsLayers": []int{}}), ErrMalformed, "fsLayers in a"},
		{"schema 1 by the body's type", object(map[string]any{
			"schemaVersion": 2, "mediaType": schema1.MediaTypeSigned,
		}), ErrMalformed, `manifest.v1+prettyjws" and is of schemaVersion 2`},
		{"schema 1 by type alone", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.put(t, schema1.MediaTypeSigned, []byte(`{"schemaVersion":2}`))
		}, ErrMalformed, `v1+prettyjws" and is of schemaVersion 2`},
		{"schema 1, digest not of the bytes", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.put(t, schema1.MediaTypeSigned, []byte("{}"))
			m.Size++
			return m
		}, ErrVerify, "2 bytes, want 3"},
		{"schema 1 behind an index", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.index(t, s.put(t, "", oldManifest(old{id: "a"})))
		}, ErrUnsupported, "schema 1 as an entry of an index"},
		{"schema 1, nobody tells sizes", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.put(t, "", oldManifest(old{id: "a"}))
		}, ErrUnsupported, "does not tell the sizes"},
		{"no such platform", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/arm64")
			return s.index(t, on(t, "linux/s390x", m), on(t, "linux/arm64", m), on(t, "linux/s390x", m),
				on(t, "unknown", m), s.index(t, on(t, "linux/ppc64le", m)), s.image(t, "windows/amd64"))
		}, ErrNoPlatform, "linux/amd64; choose one of these with --platform: linux/arm64, linux/ppc64le, linux/s390x, windows/amd64"},
		{"no platform is not found", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.index(t)
		}, errdefs.ErrNotFound, "nor for any other"},
		{"attestation without platform is not on offer", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64")
			m.Config = s.put(t, ocispec.MediaTypeImageConfig, []byte(`{"os":"unknown","architecture":"unknown"}`))
			return s.index(t, s.put(t, ocispec.MediaTypeImageManifest, m))
		}, ErrNoPlatform, "nor for any other"},
		{"artifact beside another platform", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64")
			m.Config.MediaType = "application/x-wine"
			artifact := s.put(t, ocispec.MediaTypeImageManifest, m)
			return s.index(t, on(t, "linux/amd64", artifact), on(t, "linux/arm64", s.image(t, "linux/arm64")))
		}, ErrNoPlatform, "--platform: linux/arm64"},
		{"hostile platform name", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/arm64")
			m.Platform = &ocispec.Platform{OS: "\x1b[2J", Architecture: "x"}
			return s.index(t, m)
		}, ErrNoPlatform, `"\x1b[2j/x"`},
		{"many platforms", func(t *testing.T, s *store) ocispec.Descriptor {
			var list []ocispec.Descriptor
			for i := range 100 {
				list = append(list, on(t, fmt.Sprintf("linux/cpu%02d", i), s.image(t, "linux/arm64")))
			}
			return s.index(t, list...)
		}, ErrNoPlatform, "linux/cpu23, and 76 more"},
		{"too many entries", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.index(t, make([]ocispec.Descriptor, maxEntries+1)...)
		}, ErrMalformed, "more than 4096 elements"},
		{"too deep", func(t *testing.T, s *store) ocispec.Descriptor {
			d := on(t, "linux/amd64", s.image(t, "linux/amd64"))
			for range maxDepth + 1 {
				d = s.index(t, d)
			}
			return d
		}, ErrMalformed, "nest more than 4 deep"},
		{"too many documents", func(t *testing.T, s *store) ocispec.Descriptor {
			arm := s.image(t, "linux/arm64")
			return s.index(t, slices.Repeat([]ocispec.Descriptor{arm}, maxDocuments+1)...)
		}, ErrMalformed, "more than 64 documents"},
		{"indexes of no image", edited(func(m *ocispec.Manifest) {
			m.Config.MediaType, m.ArtifactType = ocispec.MediaTypeEmptyJSON, IndexArtifactType
		}), ErrArtifact, `not a container image but an artifact of type "application/vnd.peel.index.v1"`},
		{"indexes of no image behind an index", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64")
			m.Config.MediaType = SOCIIndexV1
			return s.index(t, on(t, "linux/amd64", s.put(t, ocispec.MediaTypeImageManifest, m)))
		}, ErrArtifact, SOCIIndexV1},
		{"nothing but attestations", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/amd64", "application/vnd.in-toto+json")
			m.Annotations = map[string]string{annotationKind: kindAttestation}
			artifact := s.imageManifest(t, "linux/amd64", "application/vnd.in-toto+json")
			artifact.ArtifactType, artifact.Config.MediaType = attestationType, ocispec.MediaTypeEmptyJSON
			d := s.put(t, ocispec.MediaTypeImageManifest, artifact)
			d.ArtifactType = attestationType
			return s.index(t, m, d, on(t, "unknown", s.image(t, "", "application/vnd.in-toto+json")))
		}, ErrNoPlatform, "nor for any other"},
		{"artifact whose layer has no digest", edited(func(m *ocispec.Manifest) {
			m.Config.MediaType, m.Layers[0].Digest = "application/x-wine", "sha256:x"
		}), ErrMalformed, "layer 1 of 1"},
		{"artifact with a title that ends early", edited(func(m *ocispec.Manifest) {
			m.Config.MediaType, m.Layers[0].Annotations = "application/x-wine", map[string]string{ocispec.AnnotationTitle: "a\x00b"}
		}), ErrMalformed, `the title "a\x00b"`},
		{"artifact with a long title", edited(func(m *ocispec.Manifest) {
			m.Config.MediaType = "application/x-wine"
			m.Layers[0].Annotations = map[string]string{ocispec.AnnotationTitle: strings.Repeat("x", maxTitle+1)}
		}), ErrMalformed, "at most 4096 bytes"},
		{"layer encrypted by an old tool", edited(func(m *ocispec.Manifest) {
			m.Layers[0].MediaType = dockerLayer + ".gzip+enc"
		}), ErrUnsupported, "layer 1 of 1: encrypted layers are not supported"},
		{"encrypted layer", edited(func(m *ocispec.Manifest) {
			m.Layers[0].MediaType += "+encrypted"
		}), ErrUnsupported, "layer 1 of 1: encrypted layers are not supported"},
		{"unknown layer type", edited(func(m *ocispec.Manifest) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.nydus.blob.v1"
		}), ErrUnsupported, "nydus"},
		{"layer's digest is none", edited(func(m *ocispec.Manifest) {
			m.Layers[0].Digest = "sha256:x"
		}), ErrMalformed, "layer 1 of 1"},
		{"negative layer size", edited(func(m *ocispec.Manifest) {
			m.Layers[0].Size = -1
		}), ErrMalformed, "size -1"},
		{"too many URLs", edited(func(m *ocispec.Manifest) {
			m.Layers[0].URLs = make([]string, maxURLs+1)
		}), ErrMalformed, "layer 1 of 1: malformed document: 65 urls, more than 64"},
		{"too many layers", edited(func(m *ocispec.Manifest) {
			m.Layers = slices.Repeat(m.Layers, maxLayers+1)
		}), ErrMalformed, "layers: more than 512"},
		{"config too large to ask for", edited(func(m *ocispec.Manifest) {
			m.Config.Size = MaxDocument + 1
		}), ErrMalformed, "config: malformed document: size 8388609"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			img, _, err := resolve(t, "linux/amd64", func(s *store) ocispec.Descriptor { return tc.build(t, s) })
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, %v, want %v", img, err, tc.want)
			}
			if !strings.HasPrefix(err.Error(), "docker.io/test/image") || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %q, want it to name the image and to hold %q", err, tc.text)
			}
		})
	}
}
