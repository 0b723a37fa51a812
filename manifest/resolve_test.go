package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const gzipLayer = ocispec.MediaTypeImageLayerGzip

// resolves tags x of a new store, filled by build, for the platform.
func resolve(t *testing.T, p string, build func(*store) ocispec.Descriptor) (*Image, *store, error) {
	t.Helper()
	s := newStore()
	s.tag("x", build(s))
	img, err := Resolve(t.Context(), s, parseRef(t, "test/image:x"), platform(t, p))
	return img, s, err
}

// The image that must be found is the one that build returns second.
func TestResolvePicks(t *testing.T) {
	t.Parallel()
	type entries = ocispec.Descriptor
	for _, tc := range []struct {
		name, platform string
		build          func(t *testing.T, s *store) (top, want entries)
		calls          int
	}{
		{"manifest alone", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/amd64", gzipLayer)
			return m, m
		}, 1},
		{"index", "linux/arm64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/arm64", gzipLayer)
			return s.index(t, on(t, "linux/amd64", s.image(t, "linux/amd64")), on(t, "linux/arm64/v8", m)), m
		}, 2},
		{"best variant, last in the list", "linux/arm/v7", func(t *testing.T, s *store) (entries, entries) {
			v5, v6, v7 := s.image(t, "linux/arm/v5"), s.image(t, "linux/arm/v6"), s.image(t, "linux/arm/v7")
			return s.index(t, on(t, "linux/arm/v5", v5), on(t, "linux/arm/v6", v6), on(t, "linux/arm/v7", v7)), v7
		}, 2},
		{"older variant if there is no better", "linux/arm/v7", func(t *testing.T, s *store) (entries, entries) {
			v5, v6 := s.image(t, "linux/arm/v5"), s.image(t, "linux/arm/v6")
			return s.index(t, on(t, "linux/arm/v5", v5), on(t, "linux/arm/v6", v6)), v6
		}, 2},
		{"first of equals", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			a, b := s.image(t, "linux/amd64"), s.image(t, "linux/amd64", gzipLayer)
			return s.index(t, on(t, "linux/amd64", a), on(t, "linux/amd64", b)), a
		}, 2},
		{"attestation passed by", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/amd64")
			return s.index(t, on(t, "unknown", s.image(t, "", "application/vnd.in-toto+json")), on(t, "linux/amd64", m)), m
		}, 2},
		{"artifact of the same platform passed by", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			a := s.imageManifest(t, "linux/amd64")
			a.Config.MediaType = "application/vnd.amazon.soci.index.v2+json"
			m := s.image(t, "linux/amd64", gzipLayer)
			artifact := s.put(t, ocispec.MediaTypeImageManifest, a)
			return s.index(t, on(t, "linux/amd64", artifact), on(t, "linux/amd64", m)), m
		}, 3},
		{"unknown type passed by", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			other := s.put(t, "application/x-other", map[string]int{"schemaVersion": 2})
			m := s.image(t, "linux/amd64", gzipLayer)
			return s.index(t, on(t, "linux/amd64", other), on(t, "linux/amd64", m)), m
		}, 2},
		{"nested index", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/amd64")
			arm := s.index(t, on(t, "linux/arm64", s.image(t, "linux/arm64")))
			return s.index(t, arm, s.index(t, s.index(t, on(t, "linux/amd64", m)))), m
		}, 5},
		{"entries without platform", "linux/arm64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/arm64", gzipLayer)
			return s.index(t, s.image(t, "linux/amd64"), m), m
		}, 5},
		{"platform beats none", "linux/arm64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/arm64", gzipLayer)
			return s.index(t, s.image(t, "linux/arm64"), on(t, "linux/arm64", m)), m
		}, 2},
		{"configuration without platform", "linux/arm64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "")
			return s.index(t, m), m
		}, 3},
		{"content within the descriptor", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/amd64")
			m.Data = s.docs[m.Digest]
			return s.index(t, on(t, "linux/amd64", m)), m
		}, 1},
		{"false content within the descriptor", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/amd64")
			m.Data = []byte("{}")
			return s.index(t, on(t, "linux/amd64", m)), m
		}, 2},
		{"Docker's types", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			doc := s.imageManifest(t, "linux/amd64", dockerLayer+".gzip", dockerForeign+".gzip")
			doc.MediaType, doc.Config.MediaType = dockerManifest, dockerConfig
			m := s.put(t, dockerManifest, doc)
			return s.put(t, dockerList, ocispec.Index{
				Versioned: doc.Versioned, MediaType: dockerList, Manifests: []ocispec.Descriptor{on(t, "linux/amd64", m)},
			}), m
		}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var want ocispec.Descriptor
			img, s, err := resolve(t, tc.platform, func(s *store) ocispec.Descriptor {
				top, m := tc.build(t, s)
				want = m
				return top
			})
			if err != nil {
				t.Fatal(err)
			}
			if img.Desc.Digest != want.Digest || img.Desc.MediaType != want.MediaType {
				t.Errorf("got %s %s, want %s %s", img.Desc.MediaType, img.Desc.Digest, want.MediaType, want.Digest)
			}
			if diff := cmp.Diff(s.tags["x"], img.Top); diff != "" {
				t.Error("Top:", diff)
			}
			if err := Verify(img.Raw, img.Desc); err != nil {
				t.Error("Raw:", err)
			}
			if len(s.calls) != tc.calls {
				t.Errorf("%d calls, want %d: %q", len(s.calls), tc.calls, s.calls)
			}
			if _, err := LoadConfig(t.Context(), s, img); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestResolveByDigest(t *testing.T) {
	t.Parallel()
	s := newStore()
	m := s.image(t, "linux/amd64", gzipLayer)
	ref := parseRef(t, "test/image:notag@"+m.Digest.String())
	img, err := Resolve(t.Context(), s, ref, platform(t, "linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	// The store states no type for digests, so the document's own counts.
	if diff := cmp.Diff(m, img.Desc); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{m.Digest.String()}, s.calls); diff != "" {
		t.Error("the tag was asked for:", diff)
	}

	s.docs[m.Digest] = slices.Concat(s.docs[m.Digest], []byte(" "))
	if _, err := Resolve(t.Context(), s, ref, platform(t, "linux/amd64")); !errors.Is(err, ErrVerify) {
		t.Errorf("another document below the digest: %v", err)
	}
}

func TestResolveDefaultPlatform(t *testing.T) {
	t.Parallel()
	s := newStore()
	m := s.image(t, "")
	d := DefaultPlatform()
	m.Platform = &d
	s.tag("x", s.index(t, on(t, "linux/s390x", s.image(t, "linux/s390x")), m))
	img, err := Resolve(t.Context(), s, parseRef(t, "test/image:x"), ocispec.Platform{})
	if err != nil || img.Desc.Digest != m.Digest {
		t.Fatalf("got %v, %v", img, err)
	}
	if d.OS != "linux" || d.Architecture == "" {
		t.Errorf("default is %v", d)
	}
}

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
		{"schema 1 by body", object(map[string]any{"schemaVersion": 1, "fsLayers": []int{}}), ErrUnsupported, "schema 1"},
		{"schema 1 by type, digest not of the bytes", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.put(t, dockerV1Signed, []byte("{}"))
			m.Size++
			return m
		}, ErrUnsupported, "schema 1"},
		{"no such platform", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.image(t, "linux/arm64")
			return s.index(t, on(t, "linux/s390x", m), on(t, "linux/arm64", m), on(t, "linux/s390x", m),
				on(t, "unknown", m), s.index(t, on(t, "linux/ppc64le", m)), s.image(t, "windows/amd64"))
		}, ErrNoPlatform, "linux/amd64; choose one of these with --platform: linux/arm64, linux/ppc64le, linux/s390x, windows/amd64"},
		{"no platform is not found", func(t *testing.T, s *store) ocispec.Descriptor {
			return s.index(t)
		}, errdefs.ErrNotFound, "nor for any other"},
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
		{"artifact", edited(func(m *ocispec.Manifest) {
			m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
		}), ErrArtifact, `not a container image but an artifact of type "application/vnd.cncf.helm.config.v1+json"`},
		{"artifact with empty config", edited(func(m *ocispec.Manifest) {
			m.Config.MediaType, m.ArtifactType = ocispec.MediaTypeEmptyJSON, "application/x-wine"
		}), ErrArtifact, `"application/x-wine"`},
		{"artifact behind an index", func(t *testing.T, s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64")
			m.Config.MediaType = "application/x-wine"
			return s.index(t, on(t, "linux/amd64", s.put(t, ocispec.MediaTypeImageManifest, m)))
		}, ErrArtifact, `"application/x-wine"`},
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

func TestResolvePassesFetcherErrors(t *testing.T) {
	t.Parallel()
	_, err := Resolve(t.Context(), newStore(), parseRef(t, "test/image:x"), DefaultPlatform())
	if !errdefs.IsNotFound(err) || errors.Is(err, ErrNoPlatform) {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	data := []byte("data")
	for _, tc := range []struct {
		name string
		d    ocispec.Descriptor
		want error
	}{
		{"right", ocispec.Descriptor{Digest: digest.FromBytes(data), Size: 4}, nil},
		{"right, sha512", ocispec.Descriptor{Digest: digest.SHA512.FromBytes(data), Size: 4}, nil},
		{"size", ocispec.Descriptor{Digest: digest.FromBytes(data), Size: 5}, ErrVerify},
		{"digest", ocispec.Descriptor{Digest: digest.FromString("Data"), Size: 4}, ErrVerify},
		{"class", ocispec.Descriptor{Digest: digest.FromString("Data"), Size: 4}, errdefs.ErrDataLoss},
		{"no digest", ocispec.Descriptor{Size: 4}, ErrMalformed},
		{"unknown algorithm", ocispec.Descriptor{Digest: "md5:8d777f385d3dfec8815d20f7496026dc", Size: 4}, ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := Verify(data, tc.d); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}
