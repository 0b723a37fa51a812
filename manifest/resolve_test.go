package manifest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const gzipLayer = ocispec.MediaTypeImageLayerGzip

// resolve tags as x what build puts in a new store, and resolves it.
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
		{"best variant, first in the list", "linux/arm/v7", func(t *testing.T, s *store) (entries, entries) {
			v5, v7 := s.image(t, "linux/arm/v5"), s.image(t, "linux/arm/v7")
			return s.index(t, on(t, "linux/arm/v7", v7), on(t, "linux/arm/v5", v5)), v7
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
		{"deepest index", "linux/amd64", func(t *testing.T, s *store) (entries, entries) {
			m := s.image(t, "linux/amd64")
			d := on(t, "linux/amd64", m)
			for range maxDepth {
				d = s.index(t, d)
			}
			return d, m
		}, maxDepth + 1},
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

	// A liar's descriptor agrees with its bytes, though not with the reference.
	l := liar{child: slices.Concat(s.docs[m.Digest], []byte(" "))}
	if _, err := Resolve(t.Context(), l, ref, platform(t, "linux/amd64")); !errors.Is(err, ErrVerify) {
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

func TestResolvePassesFetcherErrors(t *testing.T) {
	t.Parallel()
	_, err := Resolve(t.Context(), newStore(), parseRef(t, "test/image:x"), DefaultPlatform())
	if !errdefs.IsNotFound(err) || errors.Is(err, ErrNoPlatform) {
		t.Error(err)
	}
}

// The best of several candidates is found wherever it is. The entries of a
// tree are written as "linux/arm/v7", with "?" before what only the
// configuration tells, and "?" alone for what nothing tells.
func TestResolveBestOfNested(t *testing.T) {
	t.Parallel()
	type tree []any
	for _, tc := range []struct {
		name, platform string
		index          tree
		want           string
		calls          int
	}{
		{"in the second index", "linux/arm64", tree{tree{"linux/amd64", "linux/arm/v7"}, tree{"linux/arm/v5", "linux/arm64"}}, "linux/arm64", 4},
		{"in the first index", "linux/arm64", tree{tree{"linux/arm/v5", "linux/arm64"}, tree{"linux/arm/v7"}}, "linux/arm64", 3},
		{"in the deeper index", "linux/arm/v7", tree{tree{"linux/arm/v5", tree{"linux/arm/v6"}}, tree{tree{"linux/arm/v7"}}}, "linux/arm/v7", 6},
		{"beside an index", "linux/arm/v7", tree{tree{"linux/arm/v6"}, "linux/arm/v7"}, "linux/arm/v7", 2},
		{"below a worse one", "linux/arm/v7", tree{"linux/arm/v5", tree{"linux/arm/v6"}}, "linux/arm/v6", 3},
		{"above a worse one", "linux/arm/v7", tree{"linux/arm/v6", tree{"linux/arm/v5"}}, "linux/arm/v6", 3},
		{"none exact", "linux/arm64", tree{tree{"linux/arm/v5"}, tree{"linux/arm/v7", "linux/arm/v6"}}, "linux/arm/v7", 4},
		{"first of equals", "linux/arm/v7", tree{tree{"?", "linux/arm/v6"}, tree{"?linux/arm/v6"}}, "linux/arm/v6", 8},
		{"told by the configuration, last", "linux/arm64", tree{"?linux/arm/v5", "?linux/arm/v7", "?linux/arm64"}, "?linux/arm64", 7},
		{"told by the configuration, first", "linux/arm64", tree{"?linux/arm64", "?linux/arm/v7"}, "?linux/arm64", 3},
		{"configuration beats a worse entry", "linux/arm/v7", tree{"linux/arm/v6", "?linux/arm/v7"}, "?linux/arm/v7", 3},
		{"told beats untold", "linux/arm/v7", tree{"?", tree{"linux/arm/v5"}}, "linux/arm/v5", 5},
		{"untold if there is no other", "linux/arm/v7", tree{tree{"linux/amd64"}, "?"}, "?", 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			names := map[digest.Digest]string{}
			var build func(s *store, e any) ocispec.Descriptor
			build = func(s *store, e any) ocispec.Descriptor {
				if list, ok := e.(tree); ok {
					var entries []ocispec.Descriptor
					for _, e := range list {
						entries = append(entries, build(s, e))
					}
					return s.index(t, entries...)
				}
				name := e.(string)
				p, untold := strings.CutPrefix(name, "?")
				// Another layer, as equal images would be one.
				d := s.image(t, p, slices.Repeat([]string{gzipLayer}, len(names)+1)...)
				names[d.Digest] = name
				if untold {
					return d
				}
				return on(t, p, d)
			}
			img, s, err := resolve(t, tc.platform, func(s *store) ocispec.Descriptor { return build(s, tc.index) })
			if err != nil {
				t.Fatal(err)
			}
			if got := names[img.Desc.Digest]; got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if len(s.calls) != tc.calls {
				t.Errorf("%d calls, want %d: %q", len(s.calls), tc.calls, s.calls)
			}
		})
	}
}
