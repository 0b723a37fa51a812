package local

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1image "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layers are the layers of the manifest that was picked.
func layers(t testing.TB, s *Source) []ocispec.Descriptor {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(s.raw, &m); err != nil {
		t.Fatal(err)
	}
	return m.Layers
}

// TestLayersOfAnyKind reads layers in all forms, behind names of all kinds.
func TestLayersOfAnyKind(t *testing.T) {
	t.Parallel()
	a, b := layerOf(t, "a"), layerOf(t, "b")
	zipped, zstd := string(gz(t, []byte(b))), string(zst(t, []byte(b)))
	hex := func(s string) string { return digest.FromString(s).Encoded() }
	for _, tc := range []struct {
		name    string
		entries []entry
		second  string // name of the second layer
		blob    string // its content
		kind    string
	}{
		{"plain", []entry{{name: "x", content: b}}, "x", b, dockerLayer},
		{"plain by digest", []entry{{name: "blobs/sha256/" + hex(b), content: b}}, "blobs/sha256/" + hex(b), b, dockerLayer},
		{"gzip", []entry{{name: "x.tar", content: zipped}}, "x.tar", zipped, dockerLayer + ".gzip"},
		{"gzip by digest", []entry{{name: hex(zipped) + ".tar.gz", content: zipped}}, hex(zipped) + ".tar.gz", zipped, dockerLayer + ".gzip"},
		{"gzip by diffID", []entry{{name: hex(b) + ".tar", content: zipped}}, hex(b) + ".tar", zipped, dockerLayer + ".gzip"},
		{"gzip in an OCI layout", []entry{{name: "blobs/sha256/" + hex(zipped), content: zipped}}, "blobs/sha256/" + hex(zipped), zipped, dockerLayer + ".gzip"},
		{"zstd", []entry{{name: "x", content: zstd}}, "x", zstd, dockerLayer + ".zstd"},
		{"symbolic link", []entry{{"id/layer.tar", "../" + hex(b) + ".tar", tar.TypeSymlink}, {name: hex(b) + ".tar", content: b}}, "id/layer.tar", b, dockerLayer},
		{"symbolic link to gzip", []entry{{"id/layer.tar", "../" + hex(zipped) + ".tgz", tar.TypeSymlink}, {name: hex(zipped) + ".tgz", content: zipped}}, "id/layer.tar", zipped, dockerLayer + ".gzip"},
		{"as Docker on Windows named it", []entry{{name: "id/layer.tar", content: b}}, `id\layer.tar`, b, dockerLayer},
		{"hard link", []entry{{name: "x", content: b}, {"y", "x", tar.TypeLink}}, "y", b, dockerLayer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := pack(t, append(tc.entries,
				entry{name: "a.tar", content: a},
				entry{name: "config", content: configFor(t, a, b, a)},
				entry{name: manifestFile, content: encoded(t, []saved{{Config: "config", Layers: []string{"a.tar", tc.second, "a.tar"}}})},
			)...)
			var made []string
			for _, at := range []string{"docker-archive:" + save(t, p), "docker-dir:" + untar(t, p)} {
				img, _ := image(t, at)
				if d := cmp.Diff([]digest.Digest{digest.FromString(a), digest.FromString(tc.blob), digest.FromString(a)}, blobsOf(img)); d != "" {
					t.Error(d)
				}
				if got := img.Layers[1].MediaType; got != tc.kind {
					t.Errorf("it is a %s", got)
				}
				made = append(made, string(img.Raw))
			}
			if made[0] != made[1] {
				t.Errorf("the archive's is\n%s\nthe folder's is\n%s", made[0], made[1])
			}
		})
	}
}

// several is an archive of three images, the last of which has no name.
func several(t testing.TB) []byte {
	t.Helper()
	a, b, c := layerOf(t, "a"), layerOf(t, "b"), layerOf(t, "c")
	return pack(t,
		entry{name: "a", content: a}, entry{name: "b", content: b}, entry{name: "c", content: string(gz(t, []byte(c)))},
		entry{name: "1", content: configFor(t, a)}, entry{name: "2", content: configFor(t, a, b)}, entry{name: "3", content: configFor(t, a, c)},
		entry{name: manifestFile, content: encoded(t, []saved{
			{Config: "1", RepoTags: []string{"alpine:3", "alpine:latest", "not a name"}, Layers: []string{"a"}},
			{Config: "2", RepoTags: []string{"ghcr.io/a/b:c", "localhost/x:latest"}, Layers: []string{"a", "b"}},
			{Config: "3", Layers: []string{"a", "c"}},
		})},
	)
}

func TestNames(t *testing.T) {
	t.Parallel()
	at := "docker-archive:" + save(t, several(t))
	const all = "alpine:3, alpine:latest, ghcr.io/a/b:c, localhost/x:latest, @2"
	for _, tc := range []struct {
		name, within string
		layers       int
		class        error
	}{
		{"name", ":alpine", 1, nil},
		{"name and tag", ":alpine:3", 1, nil},
		{"whole name", ":docker.io/library/alpine:3", 1, nil},
		{"other registry", ":ghcr.io/a/b:c", 2, nil},
		{"localhost", ":localhost/x", 2, nil},
		{"number", ":@2", 2, nil},
		{"number of a named one", "@0", 1, nil},
		{"no name", "", 0, ErrAmbiguous},
		{"unknown", ":busybox", 0, ErrNotFound},
		{"unknown tag", ":ghcr.io/a/b", 0, ErrNotFound},
		{"unknown number", ":@3", 0, ErrNotFound},
		{"part of a name", ":b:c", 0, ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.class == nil {
				if img, _ := image(t, at+tc.within); len(img.Layers) != tc.layers {
					t.Errorf("%d layers, want %d", len(img.Layers), tc.layers)
				}
				return
			}
			err := failure(t, at+tc.within)
			if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), ": "+all) {
				t.Errorf("got %v, want the names %s", err, all)
			}
		})
	}
	list, err := List(t.Context(), parse(t, at+":none"), Options{})
	if err != nil || len(list) != 3 {
		t.Fatalf("listed are %v, %v", list, err)
	}
	for i, want := range [][]string{{"alpine:3", "alpine:latest"}, {"ghcr.io/a/b:c", "localhost/x:latest"}, {"@2"}} {
		img, _ := image(t, at+":"+want[0])
		if !cmp.Equal(list[i].Names, want) || list[i].Desc.Digest != img.Desc.Digest {
			t.Errorf("image %d is %v, want %v as %s", i, list[i], want, img.Desc.Digest)
		}
	}
}

// TestNamesBesideDamage: an image is what it is whatever becomes of the others.
func TestNamesBesideDamage(t *testing.T) {
	t.Parallel()
	a := layerOf(t, "a")
	at := save(t, pack(t,
		entry{name: "a", content: a}, entry{name: "1", content: configFor(t, a)},
		entry{name: manifestFile, content: encoded(t, []saved{
			{Config: "gone", RepoTags: []string{"bad:1"}, Layers: []string{"gone"}},
			{Config: "1", RepoTags: []string{"good:1", "good:2"}, Layers: []string{"a"}},
		})},
	))
	s := source(t, "docker-archive:"+at+":good:2")
	if want := []string{"good:1", "good:2"}; !cmp.Equal(s.Names(), want) {
		t.Errorf("got %q, want %q", s.Names(), want)
	}
}

func TestDockerErrors(t *testing.T) {
	t.Parallel()
	a := layerOf(t, "a")
	config, other := configFor(t, a), idOf("other")
	manifest := func(s saved) entry { return entry{name: manifestFile, content: encoded(t, []saved{s})} }
	for _, tc := range []struct {
		name    string
		entries []entry
		want    string
		class   error
	}{
		{"nothing", nil, "it has neither manifest.json nor repositories", ErrMalformed},
		{"no image", []entry{{name: manifestFile, content: "[]"}}, "there is no image in it", ErrNotFound},
		{"no JSON", []entry{{name: manifestFile, content: "["}}, "manifest.json: unexpected end", ErrMalformed},
		{"an object", []entry{{name: manifestFile, content: "{}"}}, "manifest.json: not a list", ErrMalformed},
		{"too many images", []entry{{name: manifestFile, content: "[" + strings.Repeat("{},", maxImages) + "{}]"}}, "more than 4096 elements", ErrMalformed},
		{"too many layers", []entry{{name: manifestFile, content: `[{"Layers":[` + strings.Repeat(`"",`, maxLayers) + `""]}]`}}, "Layers: more than 512", ErrMalformed},
		{"too large", []entry{{name: manifestFile, content: strings.Repeat(" ", maxDocument+1)}}, `"manifest.json" has 8388609 bytes`, ErrMalformed},
		{"no configuration", []entry{manifest(saved{Config: "c"})}, `entry "c" is missing`, ErrMalformed},
		{"no layer", []entry{{name: "c", content: config}, manifest(saved{Config: "c", Layers: []string{"l"}})}, `layer: malformed: entry "l" is missing`, ErrMalformed},
		{"fewer layers", []entry{{name: "c", content: config}, manifest(saved{Config: "c"})}, `manifest.json lists 0 layers, and entry "c" 1 diff_ids`, ErrMalformed},
		{"bad diffID", []entry{{name: "c", content: `{"rootfs":{"diff_ids":["x"]}}`}, manifest(saved{Config: "c", Layers: []string{"l"}})}, `entry "c": diff_ids: "x"`, ErrMalformed},
		{"configuration of another digest", []entry{{name: other + ".json", content: config}, manifest(saved{Config: other + ".json"})}, `entry "` + other + `.json" has digest sha256:`, ErrVerify},
		{"layer out of the archive", []entry{{name: "c", content: config}, manifest(saved{Config: "c", Layers: []string{"../../etc/shadow"}})}, `entry "../../etc/shadow": the name leads out`, ErrMalformed},
		{"absolute configuration", []entry{manifest(saved{Config: "/etc/passwd"})}, `"/etc/passwd": the name is absolute`, ErrMalformed},
		{"layer in xz", []entry{{name: "c", content: config}, {name: "l", content: "\xfd7zXZ\x00"}, manifest(saved{Config: "c", Layers: []string{"l"}})}, `entry "l": compression with xz`, ErrUnsupported},
		{"one digest for two layers", []entry{
			{name: "c", content: configFor(t, a, a)},
			{name: "l", content: a},
			{name: "m", content: a + a},
			manifest(saved{Config: "c", Layers: []string{"l", "m"}}),
		}, `entries "l" and "m" are said to be both`, ErrMalformed},
		{"manifest.json is a link", []entry{{manifestFile, "/etc/passwd", tar.TypeSymlink}}, `entry "manifest.json": it is a link to "/etc/passwd"`, ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := failure(t, "docker-archive:"+save(t, pack(t, tc.entries...)))
			if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// TestForeignLayers are described by their URLs if they are not there.
func TestForeignLayers(t *testing.T) {
	t.Parallel()
	a, b := layerOf(t, "a"), layerOf(t, "b")
	foreign := ocispec.Descriptor{
		MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: digest.FromString("foreign"), Size: 7,
		URLs: []string{"https://example.com/layer"},
	}
	entries := []entry{
		{name: "c", content: configFor(t, a, b)},
		{name: "b", content: b},
		{name: manifestFile, content: encoded(t, []saved{{
			Config: "c", Layers: []string{"a", "b"},
			LayerSources: map[digest.Digest]ocispec.Descriptor{digest.FromString(a): foreign, digest.FromString(b): foreign},
		}})},
	}
	src := source(t, "docker-archive:"+save(t, pack(t, entries...)))
	got := layers(t, src)
	if d := cmp.Diff(foreign, got[0]); d != "" {
		t.Error(d)
	}
	if got[1].Digest != digest.FromString(b) {
		t.Errorf("what is there is not used, but %v", got[1])
	}
	_, err := src.Open(nil, got[0]).ReadRange(t.Context(), 0, 7)
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `it may be at "https://example.com/layer"`) || errdefs.IsNotImplemented(err) {
		t.Errorf("got %v", err)
	}
}

// TestCrane reads what go-containerregistry writes, with several images and
// compressed layers.
func TestCrane(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image.tar")
	images := map[name.Reference]v1image.Image{}
	for i := range 3 {
		img, err := random.Image(5000, int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		tag, err := name.NewTag(fmt.Sprintf("example.com/repo:%d", i))
		if err != nil {
			t.Fatal(err)
		}
		images[tag] = img
	}
	if err := tarball.MultiRefWriteToFile(path, images); err != nil {
		t.Fatal(err)
	}
	for tag, want := range images {
		src := source(t, "docker-archive:"+path+":"+tag.Name())
		m, err := want.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range layers(t, src) {
			p := whole(t, src.Open(nil, l))
			if l.Digest.String() != m.Layers[i].Digest.String() || digest.FromBytes(p) != l.Digest {
				t.Errorf("%v: layer %d is %s, want %s", tag, i, l.Digest, m.Layers[i].Digest)
			}
		}
		if !bytes.Contains(src.raw, []byte(m.Config.Digest.String())) {
			t.Errorf("%v: its configuration is not %s: %s", tag, m.Config.Digest, src.raw)
		}
	}
}

// TestFolderLinks follows links within the folder only.
func TestFolderLinks(t *testing.T) {
	t.Parallel()
	outside := save(t, []byte(layerOf(t, "x")))
	for _, tc := range []struct{ name, target, want string }{
		{"inside", "layer", ""},
		{"absolute", outside, `"layer.tar" is a link to`},
		{"dots", "../../../../../../../../" + outside, `"layer.tar" is a link to`},
		{"circle", "layer.tar", `"layer.tar" is a link to "layer.tar"`},
		{"folder", ".", `"layer.tar" is not a regular file`},
		{"dangling", "nothing", `entry "layer.tar" is missing`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := untar(t, pack(t, single(t, layerOf(t, "x"))...))
			err := errors.Join(
				os.Rename(filepath.Join(dir, "layer.tar"), filepath.Join(dir, "layer")),
				os.Symlink(tc.target, filepath.Join(dir, "layer.tar")),
			)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				image(t, "docker-dir:"+dir)
				return
			}
			if err := failure(t, "docker-dir:"+dir); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
