package local

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/manifest"
)

// What skopeo made of the tricky image: its configuration and its tars.
const trickyConfig = digest.Digest("sha256:9750e9f6640fe2fc1c495e147410e99f67c3f839577d6dbe1332973f59a144f6")

func trickyDiffIDs() []digest.Digest {
	return []digest.Digest{
		"sha256:7a74d6dc5af673e7cfef15c448e2d9857463fafe210149c139e8242d6b2eef47",
		"sha256:17149563b05314101c14ec19516045734f65f018a28685e89644f390f0d092d9",
		"sha256:69245692d09abbd9487342c4b663e559807427f3a667da1fee876304e2f08467",
	}
}

// trickyTar is the archive that skopeo wrote, decompressed.
func trickyTar(t testing.TB, root string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(root, "tricky.docker.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := r.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestVectorArchive reads docker save's archive in all the shapes it comes in.
func TestVectorArchive(t *testing.T) {
	t.Parallel()
	root, ok := vectors(t)
	if !ok {
		return
	}
	p := trickyTar(t, root)
	for _, tc := range []struct {
		name, ref string
		without   []string
	}{
		{"archive", "docker-archive:" + save(t, p), nil},
		{"archive, by name", "docker-archive:" + save(t, p) + ":tricky", nil},
		{"archive, by number", "docker-archive:" + save(t, p) + ":@0", nil},
		{"archive in zstd", "docker-archive:" + filepath.Join(root, "tricky.docker.tar.zst"), nil},
		{"archive in gzip", "docker-archive:" + save(t, gz(t, p)), nil},
		{"folder", "docker-dir:" + untar(t, p), nil},
		{"folder, by name", "docker-dir:" + untar(t, p) + ":docker.io/library/tricky:latest", nil},
		{"legacy folder", "docker-dir:" + untar(t, p), []string{manifestFile}},
		{"legacy folder without names", "docker-dir:" + untar(t, p), []string{manifestFile, repositoriesFile}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref := parse(t, tc.ref)
			for _, name := range tc.without {
				if err := os.Remove(filepath.Join(ref.Location(), name)); err != nil {
					t.Fatal(err)
				}
			}
			img, config := image(t, tc.ref)
			if d := cmp.Diff(trickyDiffIDs(), config.DiffIDs()); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(trickyDiffIDs(), blobsOf(img)); d != "" {
				t.Error(d)
			}
			if got := img.Manifest.Config.Digest; tc.without == nil && got != trickyConfig {
				t.Errorf("the configuration is %s", got)
			}
			if d := cmp.Diff([]string{"PATH=/bin", "PEEL=1"}, config.Config.Env); d != "" {
				t.Error(d)
			}
			list, err := List(t.Context(), ref, Options{Tmp: t.TempDir()})
			want := []string{"docker.io/library/tricky:latest"}
			if len(tc.without) == 2 {
				want = []string{"@0"}
			}
			if err != nil || len(list) != 1 || !cmp.Equal(list[0].Names, want) || list[0].Desc.Digest != img.Desc.Digest {
				t.Errorf("listed is %v, %v; want %v as %s", list, err, want, img.Desc.Digest)
			}
		})
	}
}

// TestVectorLayout reads all forms of the tricky image from the layout.
func TestVectorLayout(t *testing.T) {
	t.Parallel()
	root, ok := vectors(t)
	if !ok {
		return
	}
	at := "oci:" + filepath.Join(root, "tricky")
	list, err := List(t.Context(), parse(t, at), Options{})
	if err != nil || len(list) != 9 { // all but soci-v1, which is attached to gz
		t.Fatalf("listed are %d: %v, %v", len(list), list, err)
	}
	for _, e := range list {
		t.Run(e.Names[0], func(t *testing.T) {
			t.Parallel()
			for _, within := range []string{":" + e.Names[0], "@" + e.Desc.Digest.String()} {
				img, config := image(t, at+within)
				if img.Top.Digest != e.Desc.Digest {
					t.Errorf("%s is %s, want %s", within, img.Top.Digest, e.Desc.Digest)
				}
				if n := len(config.DiffIDs()); n != 3 {
					t.Errorf("%d diffIDs", n)
				}
			}
		})
	}
}

// TestVectorSchema1 reads skopeo's folder with a manifest of schema 1.
func TestVectorSchema1(t *testing.T) {
	t.Parallel()
	root, ok := vectors(t)
	if !ok {
		return
	}
	at := "dir:" + filepath.Join(root, "tricky-schema1")
	img, _ := image(t, at)
	if !img.Schema1 {
		t.Error("it is not of schema 1")
	}
	gz, _ := image(t, "oci:"+filepath.Join(root, "tricky")+":gz")
	if d := cmp.Diff(blobsOf(gz), blobsOf(img)); d != "" {
		t.Error(d)
	}
	config, err := manifest.CompleteConfig(img, trickyDiffIDs())
	if err != nil || len(config.History) != 3 {
		t.Errorf("%v, %v", config, err)
	}
	// The same document by the digest that registries know it by.
	src, ref := source(t, at), parse(t, at)
	named, err := digested(ref, img.Desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	d, raw, err := src.Manifest(t.Context(), named)
	if err != nil || d.Digest != img.Desc.Digest || !bytes.Equal(raw, img.Raw) {
		t.Errorf("by digest: %v, %v", d, err)
	}
}

// TestSkopeo compares what skopeo writes with what it was given.
func TestSkopeo(t *testing.T) {
	t.Parallel()
	root, ok := vectors(t)
	if !ok {
		return
	}
	from := "oci:" + filepath.Join(root, "tricky")
	img, _ := image(t, from+":gz")
	plain, zipped := trickyDiffIDs(), blobsOf(img)
	for _, tc := range []struct {
		name, tag, to, read string
		layers              []digest.Digest
		same                bool // the manifest too
	}{
		{"docker-archive", "gz", "docker-archive:%:a/b:c", "docker-archive:%:a/b:c", plain, false},
		{"docker-archive without name", "tar", "docker-archive:%", "docker-archive:%", plain, false},
		{"oci-archive", "gz", "oci-archive:%:tag", "oci-archive:%:tag", zipped, true},
		{"oci-archive without name", "gz", "oci-archive:%", "oci-archive:%", zipped, true},
		{"oci", "gz", "oci:%:tag", "oci:%", zipped, true},
		{"dir", "gz", "dir:%", "dir:%", zipped, true},
		{"dir of an index", "soci-v2", "dir:%", "dir:%", zipped, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			at := func(s string) string { return strings.Replace(s, "%", path, 1) }
			args := []string{from + ":" + tc.tag, at(tc.to)}
			if tc.tag == "soci-v2" {
				args = append(args, "--all")
			}
			skopeoCopy(t, args...)
			want, _ := image(t, from+":"+tc.tag)
			got, config := image(t, at(tc.read))
			if d := cmp.Diff(tc.layers, blobsOf(got)); d != "" {
				t.Error(d)
			}
			if tc.same && (got.Top.Digest != want.Top.Digest || got.Desc.Digest != want.Desc.Digest) {
				t.Errorf("it is %s, want %s", got.Top.Digest, want.Top.Digest)
			}
			if d := cmp.Diff(trickyDiffIDs(), config.DiffIDs()); d != "" {
				t.Error(d)
			}
		})
	}
}
