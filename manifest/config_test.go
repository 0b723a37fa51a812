package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	img, s, err := resolve(t, "linux/amd64", func(s *store) ocispec.Descriptor {
		return s.image(t, "linux/amd64", gzipLayer, ocispec.MediaTypeImageLayerZstd)
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(t.Context(), s, img)
	if err != nil {
		t.Fatal(err)
	}
	want := []digest.Digest{digest.FromString("linux/amd64tar0"), digest.FromString("linux/amd64tar1")}
	if diff := cmp.Diff(want, c.DiffIDs()); diff != "" {
		t.Error(diff)
	}
	if c.Architecture != "amd64" || !bytes.Equal(c.Raw, s.docs[img.Manifest.Config.Digest]) {
		t.Errorf("got %+v", c)
	}

	img.Manifest.Config.Data = c.Raw
	s.docs = nil
	if _, err := LoadConfig(t.Context(), s, img); err != nil {
		t.Error("content within the descriptor was not used:", err)
	}
}

func TestLoadConfigOfOldDockerImages(t *testing.T) {
	t.Parallel()
	for _, mediaType := range []string{"", "application/octet-stream", "application/json", "text/html"} {
		img, s, err := resolve(t, "linux/amd64", func(s *store) ocispec.Descriptor {
			m := s.imageManifest(t, "linux/amd64", dockerLayer+".gzip")
			m.MediaType, m.Config.MediaType = dockerManifest, mediaType
			return s.put(t, dockerManifest, m)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(t.Context(), s, img); err != nil {
			t.Error(err)
		}
	}
}

func TestLoadConfigErrors(t *testing.T) {
	t.Parallel()
	id := digest.FromString("tar").String()
	list := func(n int, s string) string { return "[" + strings.TrimSuffix(strings.Repeat(s+",", n), ",") + "]" }
	rootfs := fmt.Sprintf(`"rootfs":{"type":"layers","diff_ids":[%q]}`, id)
	for _, tc := range []struct {
		name, config string
		want         error
		text         string
	}{
		{"not JSON", "x", ErrMalformed, "malformed document"},
		{"no diffIDs", "{}", ErrMalformed, "0 diff_ids for 1 layers"},
		{"too few diffIDs", `{"rootfs":{"diff_ids":[]}}`, ErrMalformed, "0 diff_ids for 1 layers"},
		{"diffIDs not a list", `{"rootfs":{"diff_ids":{}}}`, ErrMalformed, "diff_ids: not a list"},
		{"diffID is none", `{"rootfs":{"diff_ids":["x"]}}`, ErrMalformed, `diff_ids: malformed document: digest "x"`},
		{"far too many diffIDs", `{"rootfs":{"diff_ids":` + list(maxLayers+1, `""`) + `}}`, ErrMalformed, "more than 512"},
		{"too much history", "{" + rootfs + `,"history":` + list(maxHistory+1, "{}") + "}", ErrMalformed, "history: more than 8192"},
		{"another platform", "{" + rootfs + `,"os":"linux","architecture":"arm64"}`, ErrNoPlatform, "linux/amd64; choose one of these with --platform: linux/arm64"},
		{"another platform is not found", "{" + rootfs + `,"os":"windows","architecture":"amd64"}`, errdefs.ErrNotFound, "windows/amd64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			img, s, err := resolve(t, "linux/amd64", func(s *store) ocispec.Descriptor {
				m := s.imageManifest(t, "linux/amd64", gzipLayer)
				m.Config = s.put(t, ocispec.MediaTypeImageConfig, []byte(tc.config))
				return s.put(t, ocispec.MediaTypeImageManifest, m)
			})
			if err != nil {
				t.Fatal(err)
			}
			c, err := LoadConfig(t.Context(), s, img)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, %v, want %v", c, err, tc.want)
			}
			if !strings.HasPrefix(err.Error(), "docker.io/test/image:x: ") || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %q, want it to name the image and to hold %q", err, tc.text)
			}
		})
	}
}

func TestLoadConfigChecksDigest(t *testing.T) {
	t.Parallel()
	img, s, err := resolve(t, "linux/amd64", func(s *store) ocispec.Descriptor { return s.image(t, "linux/amd64") })
	if err != nil {
		t.Fatal(err)
	}
	raw := bytes.Clone(s.docs[img.Manifest.Config.Digest])
	raw[0] ^= 1
	s.docs[img.Manifest.Config.Digest] = raw
	if _, err := LoadConfig(t.Context(), s, img); !errors.Is(err, ErrVerify) {
		t.Errorf("flipped bit: %v", err)
	}
}

// What an index says of a platform counts more than the configuration, and
// variants and missing platforms in a configuration are let pass.
func TestLoadConfigPlatform(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, platform, config string
		inIndex                bool
		want                   error
	}{
		{"index says otherwise", "linux/arm64", "linux/amd64", true, nil},
		{"newer variant than wanted", "linux/arm/v6", "linux/arm/v7", false, nil},
		{"variant of amd64", "linux/amd64", "linux/amd64/v3", false, nil},
		{"compatible", "linux/amd64", "linux/386", false, nil},
		{"none", "linux/arm64", "", false, nil},
		{"other", "linux/386", "linux/amd64", false, ErrNoPlatform},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			img, s, err := resolve(t, tc.platform, func(s *store) ocispec.Descriptor {
				m := s.image(t, tc.config, gzipLayer)
				if tc.inIndex {
					m = s.index(t, on(t, tc.platform, m))
				}
				return m
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := LoadConfig(t.Context(), s, img); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// Only an index that was verified tells a platform, not the server.
func TestLoadConfigIgnoresServersPlatform(t *testing.T) {
	t.Parallel()
	img, s, err := resolve(t, "linux/arm64", func(s *store) ocispec.Descriptor {
		return on(t, "linux/arm64", s.image(t, "linux/amd64"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(t.Context(), s, img); !errors.Is(err, ErrNoPlatform) {
		t.Error(err)
	}
}

func TestParsePlatform(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"pair", "linux/amd64", "linux/amd64"},
		{"variant", "linux/arm/v6", "linux/arm/v6"},
		{"other names", "Linux/aarch64", "linux/arm64"},
		{"default variant", "linux/arm64/v8", "linux/arm64"},
		{"processor", "s390x", "linux/s390x"},
		{"processor, other name", "x86_64", "linux/amd64"},
		{"system", "linux", "linux/" + DefaultPlatform().Architecture},
		{"system, other name", "macos", "darwin/" + DefaultPlatform().Architecture},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, err := ParsePlatform(tc.in)
			if got := platformName(p); err != nil || !strings.HasPrefix(got, tc.want) {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
	for _, in := range []string{"", "/", "linux/", "what", "linux/*", "linux/arm/v7/x", "linux amd64", "a/" + strings.Repeat("b", 200)} {
		_, err := ParsePlatform(in)
		if !errors.Is(err, ErrPlatform) || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "linux/arm64") {
			t.Errorf("ParsePlatform(%q): %v", in, err)
		}
	}
}
