package manifest

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// outcome is what must be found behind a tag of a layout.
type outcome struct {
	manifest digest.Digest
	layers   []string // types, without what all have in common
	diffIDs  []digest.Digest
	err      error
}

// TestLayout reads layouts written by other tools: the shared vectors, and
// one made here with the same forms, so that a checkout without the vectors
// tests the same.
func TestLayout(t *testing.T) {
	t.Parallel()
	s, generated := generate(t)
	check(t, "generated", s.write(t, t.TempDir()), generated)

	const vectors = "../../shared/vectors/tricky"
	if _, err := os.Stat(vectors); errors.Is(err, os.ErrNotExist) {
		t.Log("the shared vectors are absent; only the generated layout was read")
		return
	}
	check(t, "vectors", layout(vectors), tricky())
}

func check(t *testing.T, name string, l layout, want map[string]outcome) {
	t.Helper()
	for tag, o := range want {
		t.Run(name+"/"+tag, func(t *testing.T) {
			t.Parallel()
			img, err := Resolve(t.Context(), l, parseRef(t, "test/image:"+tag), platform(t, "linux/amd64"))
			if !errors.Is(err, o.err) {
				t.Fatalf("got %v, want %v", err, o.err)
			}
			if err != nil {
				return
			}
			c, err := LoadConfig(t.Context(), l, img)
			if err != nil {
				t.Fatal(err)
			}
			got := outcome{manifest: img.Desc.Digest, diffIDs: c.DiffIDs()}
			for _, d := range img.Layers {
				got.layers = append(got.layers, strings.TrimPrefix(d.MediaType, ocispec.MediaTypeImageLayer))
			}
			if diff := cmp.Diff(o, got, cmp.AllowUnexported(outcome{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func generate(t *testing.T) (*store, map[string]outcome) {
	t.Helper()
	s, want := newStore(), map[string]outcome{}
	for tag, suffix := range map[string]string{"tar": "", "gz": "+gzip", "zst": "+zstd"} {
		d := s.image(t, "linux/amd64", slices.Repeat([]string{ocispec.MediaTypeImageLayer + suffix}, 3)...)
		s.tag(tag, d)
		want[tag] = outcome{
			manifest: d.Digest,
			layers:   []string{suffix, suffix, suffix},
			diffIDs: []digest.Digest{
				digest.FromString("linux/amd64tar0"), digest.FromString("linux/amd64tar1"), digest.FromString("linux/amd64tar2"),
			},
		}
	}
	m := s.imageManifest(t, "linux/amd64", "application/octet-stream")
	gz := s.tags["gz"]
	m.Config.MediaType, m.Subject = SOCIIndexV1, &gz
	soci := s.put(t, ocispec.MediaTypeImageManifest, m)
	s.tag("soci-v1", soci)
	s.tag("soci-v2", s.index(t, on(t, "linux/amd64", soci), on(t, "linux/amd64", gz)))
	want["soci-v1"], want["soci-v2"] = want["gz"], want["gz"]
	return s, want
}

// tricky is what tricky/ of the shared vectors holds. Its image "tar" has
// gzip layers, whatever its name says.
func tricky() map[string]outcome {
	diffIDs := func(d ...digest.Digest) []digest.Digest { return d }
	original := diffIDs(
		"sha256:7a74d6dc5af673e7cfef15c448e2d9857463fafe210149c139e8242d6b2eef47",
		"sha256:17149563b05314101c14ec19516045734f65f018a28685e89644f390f0d092d9",
		"sha256:69245692d09abbd9487342c4b663e559807427f3a667da1fee876304e2f08467",
	)
	gzip, zstd := slices.Repeat([]string{"+gzip"}, 3), slices.Repeat([]string{"+zstd"}, 3)
	return map[string]outcome{
		"gz":          {manifest: "sha256:ff26282fdbb13746b78182e1358974421ee42be4420449fee969d32e16cf5014", layers: gzip, diffIDs: original},
		"gz-members":  {manifest: "sha256:76d51bdcbc316b716ed16fad0cd1bbb5dd20cccc331f3b82cf45d93e403b3d1b", layers: gzip, diffIDs: original},
		"tar":         {manifest: "sha256:5261a904efc3fcf7d1e74fbdf36db4fd61c7a7534546dcdc41d4dba2073ea038", layers: gzip, diffIDs: original},
		"zst":         {manifest: "sha256:8a1d2f83d4e19c08f8dce50d65bac384a0b46fba86ff654c553a37d7b2c98154", layers: zstd, diffIDs: original},
		"zstdchunked": {manifest: "sha256:b746802f54ea2676a50a59faffb46cc259ae998ea92c891ca260476aeaad8904", layers: zstd, diffIDs: original},
		"soci-v2":     {manifest: "sha256:3bd6c4f40b1488d10e5607f07a08fa0dd463d4a6ff528369f47128a5b6f04135", layers: gzip, diffIDs: original},
		"soci-v1":     {manifest: "sha256:ff26282fdbb13746b78182e1358974421ee42be4420449fee969d32e16cf5014", layers: gzip, diffIDs: original},
		"esgz": {
			manifest: "sha256:ee902d4d81cac2f8e968d5400682c92d6f706c46e24a98701596a389402aacba", layers: gzip,
			diffIDs: diffIDs(
				"sha256:1ab9b91e863a5eb3efba6be646e0a4ec4863b631b13b2bf28ec5bec5565eab0d",
				"sha256:1654bcc52dac6a782c333a03a8396e7358f0da88b71e33db543932977eac55aa",
				"sha256:df462d8faa0c5bb1db4fc9ee55e1c151bff256f329518a27d374f8b0d99fcd8f",
			),
		},
		"esgz-min": {
			manifest: "sha256:8b4e77ce123cf3b933592131d4b1e10abe370c9441eaa4fe38371ebcd2313ec4", layers: gzip,
			diffIDs: diffIDs(
				"sha256:ea6830f95c178f8575d5c06664fa1540e4b9955cfb358f52390c9345002efa1f",
				"sha256:564d8ea5b4e294b1aac191dc25868d9cd0f8c9bee6600320a831dff526bb87ee",
				"sha256:ae545e296cc8244ea87795b6fffb07dcaf7e9661cbaf2009ffe0ed41b2d3c315",
			),
		},
		"zstdchunked-early": {
			manifest: "sha256:4dd5f87ae8fb6ec8f9de63a3f9f6c635e67fc9196979a84e2c2814886c0f4fed", layers: zstd,
			diffIDs: diffIDs(
				"sha256:23fd8372b246eadb8082a61addf52419c06ffca4768133cadb2103747d5101b8",
				"sha256:5bc2cfa4370a4a15954c0655bffa80c7faad46210a8c11f2f1efadc8940db476",
				"sha256:48c62da3043c57232173aeebca03d85718078c020b5b3ad78869560292b95276",
			),
		},
	}
}
