package manifest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestArtifact(t *testing.T) {
	t.Parallel()
	type layers = []ocispec.Descriptor
	file := func(mediaType, title, unpack string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(title), Size: 1, Annotations: map[string]string{}}
		for k, v := range map[string]string{ocispec.AnnotationTitle: title, annotationUnpack: unpack} {
			if v != "" {
				d.Annotations[k] = v
			}
		}
		return d
	}
	anon := digest.FromString("").Encoded()
	for _, tc := range []struct {
		name   string
		layers layers
		files  []string
	}{
		{"none", layers{}, nil},
		{"placeholder", layers{ocispec.DescriptorEmptyJSON}, nil},
		{"titles", layers{file("text/plain", "a/b.txt", ""), file("", "c", "")}, []string{"a/b.txt", "c"}},
		{"the same title", layers{file("text/plain", "a", ""), file("text/html", "a", "")}, []string{"a", "a"}},
		{"no title", layers{file("application/vnd.wasm", "", "")}, []string{anon}},
		{"tar without title", layers{file(gzipLayer, "", ""), file("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "", "")}, []string{"", ""}},
		{"ORAS's folder", layers{file(gzipLayer, "folder", "true")}, []string{""}},
		{"ORAS's file without a type", layers{file(ocispec.MediaTypeImageLayer, "x.sh", "")}, []string{"x.sh"}},
		{"to be unpacked, but no tar", layers{file("application/gzip", "x.gz", "true")}, []string{"x.gz"}},
		{"an empty object with a title", layers{file(ocispec.MediaTypeEmptyJSON, "x.json", "")}, []string{"x.json"}},
		{"hostile title", layers{file("text/plain", "../../etc/passwd", "")}, []string{"../../etc/passwd"}},
	} {
		for _, behind := range []string{"alone", "behind an index", "behind an entry with platform", "beside indexes"} {
			t.Run(tc.name+"/"+behind, func(t *testing.T) {
				t.Parallel()
				img, s, err := resolve(t, "linux/amd64", func(s *store) ocispec.Descriptor {
					m := s.imageManifest(t, "")
					m.Config = s.put(t, "application/x-wine", []byte("no JSON"))
					m.Layers = tc.layers
					d := s.put(t, ocispec.MediaTypeImageManifest, m)
					m.ArtifactType = SOCIIndexV1
					m.Layers = nil
					switch behind {
					case "behind an index":
						return s.index(t, d)
					case "behind an entry with platform":
						return s.index(t, on(t, "linux/amd64", d))
					case "beside indexes":
						return s.index(t, s.put(t, ocispec.MediaTypeImageManifest, m), s.index(t, d))
					}
					return d
				})
				if err != nil {
					t.Fatal(err)
				}
				checkArtifact(t, s, img, tc.files)
			})
		}
	}
}

func checkArtifact(t *testing.T, s *store, img *Image, files []string) {
	t.Helper()
	var got []string
	var diffIDs []digest.Digest
	for i := range img.Layers {
		got = append(got, img.FileName(i))
		diffIDs = append(diffIDs, someDigest)
	}
	if diff := cmp.Diff(files, got); diff != "" {
		t.Error(diff)
	}
	if !img.Artifact || img.Schema1 || !img.DiffIDsUnknown() {
		t.Errorf("got %+v", img)
	}
	before, err := LoadConfig(t.Context(), s, img)
	if err != nil {
		t.Fatal(err)
	}
	after, err := CompleteConfig(img, diffIDs)
	if err != nil {
		t.Fatal(err)
	}
	if len(before.DiffIDs()) != 0 || before.OS != "linux" || before.Architecture != "amd64" {
		t.Errorf("config %s", before.Raw)
	}
	if diff := cmp.Diff(diffIDs, after.DiffIDs()); diff != "" {
		t.Error(diff)
	}
}

// An image's layers are no files, and its diffIDs are known.
func TestImageIsNoArtifact(t *testing.T) {
	t.Parallel()
	img, _, err := resolve(t, "linux/amd64", func(s *store) ocispec.Descriptor { return s.image(t, "linux/amd64", gzipLayer) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CompleteConfig(img, []digest.Digest{someDigest}); err == nil || img.DiffIDsUnknown() || img.FileName(0) != "" {
		t.Errorf("got %v of %v", err, img)
	}
}

func TestWindows(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, platform, want string }{
		{"any build", "windows/amd64", "10.0.20348.1"},
		{"a build", "windows(10.0.17763)/amd64", "10.0.17763.2"},
		{"the newest of a build", "windows(10.0.17763.3)/amd64", "10.0.17763.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			names := map[digest.Digest]string{}
			img, _, err := resolve(t, tc.platform, func(s *store) ocispec.Descriptor {
				var entries []ocispec.Descriptor
				for i, version := range []string{"10.0.20348.1", "10.0.17763.2", "10.0.14393.3"} {
					types := []string{dockerForeign + ".gzip", ocispec.MediaTypeImageLayerNonDistributableGzip, gzipLayer} //nolint:staticcheck // still to be read
					d := on(t, "windows/amd64", s.image(t, "windows/amd64", types[:i+1]...))
					d.Platform.OSVersion = version
					names[d.Digest] = version
					entries = append(entries, d)
				}
				return s.index(t, append([]ocispec.Descriptor{on(t, "linux/amd64", s.image(t, "linux/amd64"))}, entries...)...)
			})
			if err != nil {
				t.Fatal(err)
			}
			if names[img.Desc.Digest] != tc.want {
				t.Errorf("got %s", names[img.Desc.Digest])
			}
		})
	}
}
