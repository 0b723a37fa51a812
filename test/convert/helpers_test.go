//go:build linux

package convert

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// runTime bounds the wait for what must happen.
const runTime = time.Minute

// formats maps what convert calls a format to what inspect calls it.
var formats = map[string]string{"estargz": "eStargz", "zstd:chunked": "zstd:chunked"}

// repo is a name for what format makes of something.
func repo(format, of string) string { return strings.ReplaceAll(format, ":", "-") + "/" + of }

// converted runs peel convert and returns the new reference with its digest.
func converted(t *testing.T, p *testkit.Peel, args ...string) string {
	t.Helper()
	return strings.TrimSpace(p.Must(append([]string{"convert"}, args...)...).Stdout)
}

// tags lists the tags of a layout but those for SOCI, whose layers are gz's.
func tags(t *testing.T, layout string) []string {
	t.Helper()
	var out []string
	for _, m := range read[ocispec.Index](t, filepath.Join(layout, ocispec.ImageIndexFile)).Manifests {
		if tag := m.Annotations[ocispec.AnnotationRefName]; !strings.HasPrefix(tag, "soci") {
			out = append(out, tag)
		}
	}
	return out
}

func read[T any](t *testing.T, file string) (v T) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// lazily is what inspect is to say of n layers.
func lazily(format string, n int) []string { return slices.Repeat([]string{format + " lazy"}, n) }

func layers(t *testing.T, p *testkit.Peel, ref string) []string {
	t.Helper()
	var image struct {
		Layers []struct{ Format, Access string }
	}
	out := p.Must("inspect", "--json", ref).Stdout
	if err := json.Unmarshal([]byte(out), &image); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all []string
	for _, l := range image.Layers {
		all = append(all, l.Format+" "+l.Access)
	}
	return all
}

// unpack fetches an image with skopeo, which checks all digests, and unpacks it
// with umoci, which checks the diff IDs but knows no zstd.
func unpack(t *testing.T, ref string) []testkit.Row {
	t.Helper()
	c := fetch(t, ref)
	m := read[ocispec.Manifest](t, c.blob(c.top))
	config := read[ocispec.Image](t, c.blob(m.Config))
	plain, err := testkit.NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var layers []testkit.Layer
	for i, d := range m.Layers {
		tar := run(t, map[bool]string{true: "zstd", false: "gzip"}[strings.HasSuffix(d.MediaType, "zstd")], "-dc", c.blob(d))
		l := testkit.Layer{Blob: []byte(tar), DiffID: config.RootFS.DiffIDs[i]}
		l.Desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(tar), Size: int64(len(tar))}
		layers = append(layers, l)
	}
	d, err := plain.Image(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.Tag("latest", d); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	run(t, "umoci", "raw", "unpack", "--image", plain.Dir+":latest", root)
	rows, err := testkit.List(root)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// without leaves out the files that tools that know nothing of eStargz see in
// its layers.
func without(rows []testkit.Row) []testkit.Row {
	return slices.DeleteFunc(rows, func(r testkit.Row) bool {
		return slices.Contains([]string{"/stargz.index.json", "/.no.prefetch.landmark", "/.prefetch.landmark"}, r.Path)
	})
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, &stderr)
	}
	return string(out)
}

// configText is a configuration with white space and members that no library
// keeps.
const configText = `{
  "architecture": "amd64", "os": "linux",  "peel.test": {"b": 1, "a": [2 , 3]},
  "rootfs": {"type": "layers", "diff_ids": [
      "LAYERS"
  ], "more": true},
  "history": [{"created_by": "a test"}, {"created_by": "nothing", "empty_layer": true}],
  "config": {"Env": ["A=<&>"]}
}`

// image writes an image of some layers with a configuration of its own.
func image(t *testing.T, l *testkit.Layout, arch string, layers ...testkit.Layer) (ocispec.Descriptor, string) {
	t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{"kept": "yes"}}
	m.SchemaVersion = 2
	var ids []string
	for _, layer := range layers {
		if _, err := l.Blob(layer.Desc.MediaType, layer.Blob); err != nil {
			t.Fatal(err)
		}
		m.Layers = append(m.Layers, layer.Desc)
		ids = append(ids, layer.DiffID.String())
	}
	text := strings.ReplaceAll(strings.ReplaceAll(configText, "LAYERS", strings.Join(ids, "\",\n      \"")), "amd64", arch)
	var err error
	if m.Config, err = l.Blob(ocispec.MediaTypeImageConfig, []byte(text)); err != nil {
		t.Fatal(err)
	}
	d, err := l.Document(ocispec.MediaTypeImageManifest, m)
	if err != nil {
		t.Fatal(err)
	}
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return d, text
}

// fixture is a layout with an index of two images that share a layer, and an
// attestation of the first.
type fixture struct {
	layout  *testkit.Layout
	configs map[string]string // by architecture
	images  []ocispec.Descriptor
	shared  testkit.Layer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	l, err := testkit.NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{layout: l, configs: map[string]string{}}
	f.shared = testkit.Encode(t, testkit.Gzip, testkit.Dir("usr"), testkit.File("usr/shared", testkit.Noise(1, 3<<20)))
	for _, arch := range []string{"amd64", "arm64"} {
		own := testkit.Encode(t, testkit.Zstd, testkit.File("arch", []byte(arch)))
		var d ocispec.Descriptor
		d, f.configs[arch] = image(t, l, arch, f.shared, own)
		f.images = append(f.images, d)
	}
	statement, err := l.Blob("application/vnd.in-toto+json", []byte(`{"_type":"https://in-toto.io/Statement/v0.1"}`))
	if err != nil {
		t.Fatal(err)
	}
	empty, err := l.Blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":["`+statement.Digest.String()+`"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: empty, Layers: []ocispec.Descriptor{statement}}
	m.SchemaVersion = 2
	attestation, err := l.Document(m.MediaType, m)
	if err != nil {
		t.Fatal(err)
	}
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{
		"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": f.images[0].Digest.String(),
	}
	f.images = append(f.images, attestation)
	index, err := l.Index(ocispec.MediaTypeImageIndex, f.images...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("v1", index); err != nil {
		t.Fatal(err)
	}
	return f
}

// copied is what skopeo makes of all of an image: a layout.
type copied struct {
	dir   string
	top   ocispec.Descriptor
	index ocispec.Index // that of top, if it is one
}

func fetch(t *testing.T, ref string) copied {
	t.Helper()
	c := copied{dir: filepath.Join(t.TempDir(), "all")}
	run(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+ref, "oci:"+c.dir+":latest")
	c.top = read[ocispec.Index](t, filepath.Join(c.dir, ocispec.ImageIndexFile)).Manifests[0]
	c.index = read[ocispec.Index](t, c.blob(c.top))
	return c
}

func (c copied) blob(d ocispec.Descriptor) string {
	return filepath.Join(c.dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

// members lists the tar of an image's only layer.
func members(t *testing.T, ref string) []string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir")
	run(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "dir:"+dir)
	m := read[ocispec.Manifest](t, filepath.Join(dir, "manifest.json"))
	return strings.Fields(run(t, "tar", "-tzf", filepath.Join(dir, m.Layers[0].Digest.Encoded())))
}
