package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tree is an OCI layout in the making.
type tree struct {
	t       testing.TB
	members map[string]string
	index   []ocispec.Descriptor
}

func newTree(t testing.TB) *tree {
	return &tree{t: t, members: map[string]string{ocispec.ImageLayoutFile: `{"imageLayoutVersion":"1.0.0"}`}}
}

func (l *tree) blob(mediaType, content string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
	l.members["blobs/sha256/"+d.Digest.Encoded()] = content
	return d
}

// image is one of a layer with content, for an architecture.
func (l *tree) image(content, arch string) ocispec.Descriptor {
	layer := layerOf(l.t, content)
	config := strings.Replace(configFor(l.t, layer), "amd64", arch, 1)
	return l.document(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.blob(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{l.blob(ocispec.MediaTypeImageLayer, layer)},
	})
}

func (l *tree) document(mediaType string, v any) ocispec.Descriptor {
	return l.blob(mediaType, encoded(l.t, v))
}

func (l *tree) list(entries ...ocispec.Descriptor) ocispec.Descriptor {
	return l.document(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries,
	})
}

// add puts d into index.json, with annotations in pairs.
func (l *tree) add(d ocispec.Descriptor, annotations ...string) *tree {
	d = annotated(d, annotations...)
	l.index = append(l.index, d)
	return l
}

func annotated(d ocispec.Descriptor, annotations ...string) ocispec.Descriptor {
	d.Annotations = map[string]string{}
	for i := 0; i+1 < len(annotations); i += 2 {
		d.Annotations[annotations[i]] = annotations[i+1]
	}
	return d
}

func on(d ocispec.Descriptor, arch string) ocispec.Descriptor {
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return d
}

// places are the layout as an archive and as a folder.
func (l *tree) places() []string {
	if l.members[ocispec.ImageIndexFile] == "" {
		l.members[ocispec.ImageIndexFile] = encoded(l.t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: l.index})
	}
	var entries []entry
	for name := range l.members {
		entries = append(entries, entry{name: name, content: l.members[name]})
	}
	p := pack(l.t, entries...)
	return []string{"oci-archive:" + save(l.t, p), "oci:" + untar(l.t, p)}
}

const refName = ocispec.AnnotationRefName

func TestLayoutNames(t *testing.T) {
	t.Parallel()
	l := newTree(t)
	one, two, deep := l.image("one", "amd64"), l.image("two", "amd64"), l.image("deep", "amd64")
	arm := l.image("arm", "arm64")
	l.add(one, refName, "one").add(one, refName, "uno").
		add(two, refName, "3.20", containerdName, "docker.io/library/alpine:3.20").
		add(deep, refName, "3.20", containerdName, "ghcr.io/a/b:3.20").
		add(l.list(annotated(on(deep, "amd64"), refName, "deep"), on(arm, "arm64")), refName, "nested").
		add(on(two, "amd64"), refName, "platforms").add(on(arm, "arm64"), refName, "platforms").
		add(one, refName, "same").add(two, refName, "same").
		add(on(two, "amd64"), refName, "latest", containerdName, "docker.io/library/two:latest").
		add(on(arm, "arm64"), refName, "latest", containerdName, "docker.io/library/arm:latest").
		add(on(one, "amd64"), refName, "twins").add(on(two, "amd64"), refName, "twins").
		add(one, refName, "reg.example/x/only:solo", containerdName, "reg.example/x/only:solo").
		add(one, refName, "reg.example/x/a:shared").add(two, refName, "reg.example/x/b:shared").
		add(arm).add(arm, refName, "not a name\x1b[2J")
	for _, at := range l.places() {
		for _, tc := range []struct {
			name, within string
			want         digest.Digest
			wrong        error
		}{
			{"tag", ":one", one.Digest, nil},
			{"second tag", ":uno", one.Digest, nil},
			{"containerd's name", ":docker.io/library/alpine:3.20", two.Digest, nil},
			{"containerd's name, short", ":alpine:3.20", two.Digest, nil},
			{"containerd's name of a registry", ":ghcr.io/a/b:3.20", deep.Digest, nil},
			{"index", ":nested", deep.Digest, nil},
			{"within an index", ":deep", deep.Digest, nil},
			{"of one name for several platforms", ":platforms", two.Digest, nil},
			{"digest", "@" + string(two.Digest), two.Digest, nil},
			{"digest of what no index lists on top", "@" + string(deep.Digest), deep.Digest, nil},
			{"unknown digest", "@" + string(digest.FromString("x")), "", ErrNotFound},
			{"unknown tag", ":none", "", ErrNotFound},
			{"tag of two images", ":3.20", "", ErrAmbiguous},
			{"two images of one name", ":same", "", ErrAmbiguous},
			{"two images of one name and platform", ":twins", "", ErrAmbiguous},
			{"tag of two images of different platforms", ":latest", "", ErrAmbiguous},
			{"tag of one whole name", ":solo", one.Digest, nil},
			{"tag of two whole names", ":shared", "", ErrAmbiguous},
			{"number", ":@1", one.Digest, nil},
			{"number of none", ":@99", "", ErrNotFound},
			{"no name", "", "", ErrAmbiguous},
		} {
			t.Run(at[:8]+" "+tc.name, func(t *testing.T) {
				t.Parallel()
				if tc.wrong == nil {
					if img, _ := image(t, at+tc.within); img.Desc.Digest != tc.want {
						t.Errorf("it is %s, want %s", img.Desc.Digest, tc.want)
					}
					return
				}
				if err := failure(t, at+tc.within); !errors.Is(err, tc.wrong) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
	err := failure(t, l.places()[1])
	if want := "behind the path and a colon: one, uno, reg.example/x/only:solo, reg.example/x/a:shared, docker.io/library/alpine:3.20, docker.io/library/two:latest, reg.example/x/b:shared, ghcr.io/a/b:3.20, nested, platforms, docker.io/library/arm:latest, @" + string(arm.Digest); !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestUntaggedTwins: crane keeps platforms of images without tags.
func TestUntaggedTwins(t *testing.T) {
	t.Parallel()
	l := newTree(t)
	one, two := l.image("one", "amd64"), l.image("two", "amd64")
	l.add(on(one, "amd64")).add(on(two, "amd64")).add(on(l.image("arm", "arm64"), "arm64"))
	for _, at := range l.places() {
		if err := failure(t, at); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("got %v", err)
		}
	}
}

// TestLayoutWithoutName takes the one image that there is.
func TestLayoutWithoutName(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		fill func(*tree, ocispec.Descriptor)
	}{
		{"untagged", func(l *tree, d ocispec.Descriptor) { l.add(d) }},
		{"tagged", func(l *tree, d ocispec.Descriptor) { l.add(d, refName, "x") }},
		{"two tags", func(l *tree, d ocispec.Descriptor) { l.add(d, refName, "x").add(d, refName, "y") }},
		{"platforms", func(l *tree, d ocispec.Descriptor) { l.add(on(d, "amd64")).add(on(l.image("arm", "arm64"), "arm64")) }},
		{"attestation", func(l *tree, d ocispec.Descriptor) {
			other := l.image("other", "amd64")
			other.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
			l.add(d).add(other)
		}},
		{"artifact", func(l *tree, d ocispec.Descriptor) {
			other := l.image("other", "amd64")
			other.ArtifactType = "application/x"
			l.add(d).add(other)
		}},
		{"referrers", func(l *tree, d ocispec.Descriptor) {
			l.add(d, refName, "x").add(l.list(), refName, "sha256-"+d.Digest.Encoded())
		}},
		{"listed as an artifact", func(l *tree, d ocispec.Descriptor) {
			d.ArtifactType = "application/x"
			l.add(d)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newTree(t)
			d := l.image("one", "amd64")
			tc.fill(l, d)
			for _, at := range l.places() {
				if img, _ := image(t, at); img.Desc.Digest != d.Digest {
					t.Errorf("%s is %s, want %s", at, img.Desc.Digest, d.Digest)
				}
				list, err := List(t.Context(), parse(t, at), Options{})
				if err != nil || len(list) != 1 || len(list[0].Names) == 0 {
					t.Fatalf("listed are %v, %v", list, err)
				}
				if img, _ := image(t, at+":"+list[0].Names[0]); img.Top.Digest != list[0].Desc.Digest {
					t.Errorf("%s is %s, want %s", list[0].Names[0], img.Top.Digest, list[0].Desc.Digest)
				}
			}
		})
	}
}

func TestLayoutErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, want string
		class      error
		change     func(*tree, string)
	}{
		{"no mark", "it has no file oci-layout", ErrMalformed, func(l *tree, _ string) { delete(l.members, ocispec.ImageLayoutFile) }},
		{"other version", `version "2.0.0", want 1.0.0`, ErrMalformed, func(l *tree, _ string) { l.members[ocispec.ImageLayoutFile] = `{"imageLayoutVersion":"2.0.0"}` }},
		{"no JSON", "index.json: invalid", ErrMalformed, func(l *tree, _ string) { l.members[ocispec.ImageIndexFile] = "x" }},
		{"schema version", "schemaVersion 1", ErrMalformed, func(l *tree, _ string) { l.members[ocispec.ImageIndexFile] = `{"schemaVersion":1}` }},
		{"manifest for an index", "it has layers", ErrMalformed, func(l *tree, _ string) { l.members[ocispec.ImageIndexFile] = `{"schemaVersion":2,"layers":[]}` }},
		{"empty", "there is no image in it", ErrNotFound, func(l *tree, _ string) { l.members[ocispec.ImageIndexFile] = `{"schemaVersion":2}` }},
		{"path for a digest", `digest "sha256:../../../etc/passwd"`, ErrMalformed, func(l *tree, _ string) {
			l.members[ocispec.ImageIndexFile] = `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../../etc/passwd"}]}`
		}},
		{"negative size", "entry 1: size -1", ErrMalformed, func(l *tree, blob string) {
			l.members[ocispec.ImageIndexFile] = `{"schemaVersion":2,"manifests":[{"size":-1,"digest":"sha256:` + blob + `"}]}`
		}},
		{"too many", "more than 4096 elements", ErrMalformed, func(l *tree, _ string) {
			l.members[ocispec.ImageIndexFile] = `{"schemaVersion":2,"manifests":[` + strings.Repeat("{},", maxImages) + `{}]}`
		}},
		{"other bytes", `has digest sha256:`, ErrVerify, func(l *tree, blob string) { l.members["blobs/sha256/"+blob] = "x" }},
		{"no manifest", `is missing`, ErrMalformed, func(l *tree, blob string) { delete(l.members, "blobs/sha256/"+blob) }},
		{"large manifest", `has 8388609 bytes`, ErrMalformed, func(l *tree, blob string) { l.members["blobs/sha256/"+blob] = strings.Repeat("x", maxDocument+1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newTree(t)
			d := l.image("one", "amd64")
			l.add(d)
			tc.change(l, d.Digest.Encoded())
			for _, at := range l.places() {
				if err := failure(t, at); !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %s", err, tc.want)
				}
			}
		})
	}
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	l := newTree(t)
	d, other := l.image("one", "amd64"), l.image("other", "amd64")
	attached := func(subject ocispec.Descriptor, kind, note string) ocispec.Descriptor {
		return l.document(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
			Config: ocispec.DescriptorEmptyJSON, Subject: &subject, Annotations: map[string]string{"note": note},
		})
	}
	one, two := attached(d, "application/one", "1"), attached(d, "", "2")
	tagged := annotated(attached(d, "application/tagged", "3"), "note", "3")
	tagged.ArtifactType = "application/tagged"
	missing := ocispec.Descriptor{Digest: digest.FromString("missing"), Size: 7}
	l.add(d, refName, "x").add(missing).add(one, refName, "signature").add(two).add(attached(other, "application/one", "4")).
		add(l.list(tagged), refName, "sha256-"+d.Digest.Encoded())
	one.ArtifactType, one.Annotations = "application/one", map[string]string{"note": "1"}
	two.ArtifactType, two.Annotations = ocispec.MediaTypeEmptyJSON, map[string]string{"note": "2"}
	for _, at := range l.places() {
		src := source(t, at+":x")
		got, err := src.Referrers(t.Context(), nil, d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]ocispec.Descriptor{one, two, tagged}, got); d != "" {
			t.Error(d)
		}
		if got, err := src.Referrers(t.Context(), nil, one.Digest); err != nil || got != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
	docker := source(t, "docker-archive:"+save(t, pack(t, single(t, layerOf(t, "x"))...)))
	if got, err := docker.Referrers(t.Context(), nil, d.Digest); err != nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestDir reads what only older or newer versions of skopeo write.
func TestDir(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, "x")
	l := newTree(t)
	d := l.image("x", "amd64")
	raw := l.members["blobs/sha256/"+d.Digest.Encoded()]
	config := configFor(t, layer)
	write := func(t *testing.T, version, suffix string) string {
		dir := t.TempDir()
		for name, content := range map[string]string{
			"version": version, manifestFile: raw,
			digest.FromString(layer).Encoded() + suffix: layer, digest.FromString(config).Encoded(): config,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return "dir:" + dir
	}
	for _, tc := range []struct{ name, version, suffix, want string }{
		{"now", "Directory Transport Version: 1.1\n", "", ""},
		{"before", "Directory Transport Version: 1.0\n", ".tar", ""},
		{"to come", "Directory Transport Version: 2.0\n", "", "the file version says"},
		{"something else", "x", "", "the file version says"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			at := write(t, tc.version, tc.suffix)
			if tc.want != "" {
				if err := failure(t, at); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			if img, _ := image(t, at); img.Desc.Digest != d.Digest {
				t.Errorf("it is %s", img.Desc.Digest)
			}
			list, err := List(t.Context(), parse(t, at), Options{})
			if err != nil || len(list) != 1 || list[0].Names != nil || list[0].Desc.Digest != d.Digest {
				t.Errorf("listed are %v, %v", list, err)
			}
		})
	}
	if err := failure(t, "dir:"+t.TempDir()); !strings.Contains(err.Error(), `entry "manifest.json" is missing`) {
		t.Errorf("got %v", err)
	}
}
