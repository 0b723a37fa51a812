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

	"github.com/google/go-cmp/cmp"
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

// TestTree converts an awkward image in every form, and compares what peel
// shows lazily, and what umoci unpacks.
func TestTree(t *testing.T) {
	t.Parallel()
	vectors := filepath.Join("..", "..", "..", "shared", "vectors")
	want, err := testkit.ReadListing(filepath.Join(vectors, "tricky.expected.jsonl"))
	if err != nil {
		t.Skipf("the test vectors are not here: %v", err)
	}
	reg := testkit.NewRegistry(t)
	layout := filepath.Join(vectors, "tricky")
	for _, tag := range tags(t, layout) {
		reg.Push(t, layout, tag, "tricky")
		for format, name := range formats {
			t.Run(tag+"/"+format, func(t *testing.T) {
				t.Parallel()
				p := testkit.NewPeel(t)
				dst := reg.Ref(repo(format, "tricky"), tag)
				ref := converted(t, p, "--format", format, reg.Ref("tricky", tag), dst)
				if !strings.HasPrefix(ref, dst+"@sha256:") {
					t.Errorf("said %q", ref)
				}
				if left := p.TemporaryFiles(); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
				// Layers that were in the format keep their table, and its times.
				clock := testkit.Exact
				if testkit.Form(tag).Indexed() {
					clock = testkit.WholeSeconds
				}
				if d := cmp.Diff(lazily(name, 3), layers(t, p, dst)); d != "" {
					t.Error(d)
				}
				got, err := testkit.List(p.Mount(dst))
				if err != nil {
					t.Fatal(err)
				}
				if format == "zstd:chunked" {
					got = without(got) // its tars are those of the original, be that eStargz
				}
				for _, d := range testkit.Differences(want, got, clock) {
					t.Errorf("mounted: %s", d)
				}
				for _, d := range testkit.Differences(want, without(unpack(t, dst)), testkit.Exact) {
					t.Errorf("unpacked: %s", d)
				}
			})
		}
	}
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

func TestIndex(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, f.layout.Dir, "v1", "multi")
	for format, name := range formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := testkit.NewPeel(t)
			dst := reg.Ref(repo(format, "multi"), "v1")
			first := converted(t, p, "--format", format, reg.Ref("multi", "v1"), dst)
			again := converted(t, testkit.NewPeel(t), "--format", format, reg.Ref("multi", "v1"), reg.Ref(repo(format, "again"), "v1"))
			_, a, _ := strings.Cut(first, "@")
			_, b, _ := strings.Cut(again, "@")
			if a != b {
				t.Errorf("%s once, %s then", a, b)
			}
			twice := converted(t, p, "--format", format, dst, reg.Ref(repo(format, "twice"), "v1"))
			if !strings.HasSuffix(twice, a) {
				t.Errorf("the conversion's conversion is %s, not %s", twice, a)
			}
			c := fetch(t, dst)
			if len(c.index.Manifests) != 3 {
				t.Fatalf("%+v", c.index)
			}
			shared := map[digest.Digest]bool{}
			for i, arch := range []string{"amd64", "arm64"} {
				d := c.index.Manifests[i]
				if d.Platform.Architecture != arch {
					t.Errorf("%+v is not for %s", d, arch)
				}
				m := read[ocispec.Manifest](t, c.blob(d))
				if m.Annotations["kept"] != "yes" {
					t.Errorf("annotations are %v", m.Annotations)
				}
				shared[m.Layers[0].Digest] = true
				f.checkConfig(t, format, arch, c.blob(m.Config))
			}
			if len(shared) != 1 {
				t.Errorf("the shared layer became %v", shared)
			}
			attestation := c.index.Manifests[2]
			if attestation.Digest != f.images[2].Digest || attestation.Annotations["vnd.docker.reference.digest"] != c.index.Manifests[0].Digest.String() {
				t.Errorf("the attestation became %+v", attestation)
			}
			if d := cmp.Diff(lazily(name, 2), layers(t, p, dst)); d != "" {
				t.Error(d)
			}
		})
	}
}

// checkConfig compares a configuration with the one before, byte for byte but
// for the diff IDs of eStargz.
func (f *fixture) checkConfig(t *testing.T, format, arch, file string) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := f.configs[arch]
	if format == "estargz" {
		ids := read[ocispec.Image](t, file).RootFS.DiffIDs
		start, end := strings.Index(want, "[\n"), strings.Index(want, `], "more"`)
		list, err := json.Marshal(ids)
		if err != nil {
			t.Fatal(err)
		}
		want = want[:start] + string(list) + want[end+1:]
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
}

func TestOnePlatform(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, f.layout.Dir, "v1", "multi")
	p := testkit.NewPeel(t)
	converted(t, p, "--format", "zstd:chunked", "--platform", "linux/arm64", reg.Ref("multi", "v1"), reg.Ref("one", "v1"))
	if got := p.Must("cat", reg.Ref("one", "v1")+":/arch", "--platform", "linux/arm64").Stdout; got != "arm64" {
		t.Errorf("%q", got)
	}
	if raw := run(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+reg.Ref("one", "v1")); strings.Contains(raw, `"manifests"`) {
		t.Errorf("it is an index: %s", raw)
	}
}

// TestLayout writes to a layout, twice under two tags, and a third time what is
// there already.
func TestLayout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, f.layout.Dir, "v1", "multi")
	for format := range formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := testkit.NewPeel(t)
			dir := filepath.Join(t.TempDir(), "layout")
			pushed := converted(t, p, "--format", format, reg.Ref("multi", "v1"), reg.Ref(repo(format, "pushed"), "v1"))
			_, d, _ := strings.Cut(pushed, "@")
			for _, dst := range []string{"oci:" + dir + ":one", "oci:" + dir, "oci:" + dir + ":one"} {
				got := converted(t, p, "--format", format, reg.Ref("multi", "v1"), dst)
				if !strings.HasPrefix(got, dst) || !strings.HasSuffix(got, "@"+d) {
					t.Errorf("to %s: %s, pushed it is %s", dst, got, pushed)
				}
			}
			var found []string
			for _, m := range read[ocispec.Index](t, filepath.Join(dir, ocispec.ImageIndexFile)).Manifests {
				found = append(found, m.Annotations[ocispec.AnnotationRefName])
			}
			slices.Sort(found)
			if d := cmp.Diff([]string{"latest", "one"}, found); d != "" {
				t.Error(d)
			}
			run(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "oci:"+dir+":one", "dir:"+filepath.Join(t.TempDir(), "dir"))
		})
	}
}

// TestInterrupt: Ctrl-C in the middle of a layer leaves nothing.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	l := testkit.Encode(t, testkit.Gzip, testkit.File("f", testkit.Noise(1, 8<<20)))
	reg.Publish(t, "stalls", "v1", l)
	for format := range formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			proxy := testkit.NewProxy(t, reg.Host())
			release := make(chan struct{})
			defer close(release)
			stalled := proxy.Stalls(l.Desc.Digest.String(), 4<<20, release)
			p := testkit.NewPeel(t)
			dst := reg.Ref(repo(format, "stalls"), "v1")
			cmd := p.Command(t.Context(), "convert", "--format", format, proxy.Ref("stalls", "v1"), dst)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if !p.Until(runTime, stalled) {
				t.Fatal("it never asked for the layer")
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != testkit.Interrupted {
				t.Errorf("exit code %d: %v", code, err)
			}
			if left, err := os.ReadDir(filepath.Join(p.Cache, "tmp")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if r := p.Run("inspect", dst); r.Code != testkit.NotFound {
				t.Errorf("it is there: %+v", r)
			}
		})
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	l := testkit.Encode(t, testkit.Gzip, testkit.File("first", testkit.Noise(1, 1000)), testkit.Dir("d"), testkit.File("d/wanted", testkit.Noise(2, 1000)))
	reg.Publish(t, "profile", "v1", l)
	profile := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(profile, []byte("# what the service reads\n\n/d/wanted\nno/such/file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := testkit.NewPeel(t)
	r := p.Must("convert", "--format", "estargz", "--profile", profile, reg.Ref("profile", "v1"), reg.Ref("profiled", "v1"))
	if !strings.Contains(r.Stderr, "no/such/file") || strings.Contains(r.Stderr, "wanted") {
		t.Errorf("stderr: %s", r.Stderr)
	}
	listed := members(t, reg.Ref("profiled", "v1"))
	want := []string{"d/", "d/wanted", ".prefetch.landmark", "first", "stargz.index.json"}
	if d := cmp.Diff(want, listed); d != "" {
		t.Error(d)
	}
	if r := p.Run("convert", "--format", "zstd:chunked", "--profile", profile, reg.Ref("profile", "v1"), reg.Ref("profiled", "v2")); r.Code != testkit.Usage {
		t.Errorf("a profile for zstd:chunked: %+v", r)
	}
}

// members lists the tar of an image's only layer.
func members(t *testing.T, ref string) []string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir")
	run(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "dir:"+dir)
	m := read[ocispec.Manifest](t, filepath.Join(dir, "manifest.json"))
	return strings.Fields(run(t, "tar", "-tzf", filepath.Join(dir, m.Layers[0].Digest.Encoded())))
}

// TestWrongBytes: what has not the digest it should have becomes nothing.
func TestWrongBytes(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	good := testkit.Encode(t, testkit.Gzip, testkit.File("f", testkit.Noise(1, 1<<20)))
	tests := []struct {
		name  string
		layer func() testkit.Layer
		spoil func([]byte) []byte
	}{
		{"flipped byte", func() testkit.Layer { return good }, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"another layer", func() testkit.Layer { return good }, func(b []byte) []byte {
			other := testkit.Encode(t, testkit.PlainTar, testkit.File("f", testkit.Noise(2, 1<<20))).Blob
			return append(other, make([]byte, len(b))...)[:len(b)]
		}},
		{"another tar than the configuration says", func() testkit.Layer {
			l := good
			l.DiffID = digest.FromString("something else")
			return l
		}, nil},
	}
	for i, tt := range tests {
		for format := range formats {
			t.Run(tt.name+"/"+format, func(t *testing.T) {
				name := repo(format, "wrong")
				l := tt.layer()
				reg.Publish(t, name, "v1", l)
				file := reg.BlobFile(l.Desc)
				whole, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if tt.spoil != nil {
					if err := os.WriteFile(file, tt.spoil(slices.Clone(whole)), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				p := testkit.NewPeel(t)
				dst := reg.Ref(repo(format, "never"), string('a'+rune(i)))
				r := p.Run("convert", "--format", format, reg.Ref(name, "v1"), dst)
				if r.Code != testkit.Unverified || !strings.Contains(r.Stderr, l.Desc.Digest.String()) {
					t.Errorf("%+v", r)
				}
				if r := p.Run("inspect", dst); r.Code != testkit.NotFound {
					t.Errorf("it is there: %+v", r)
				}
				if err := os.WriteFile(file, whole, 0o644); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	p := testkit.NewPeel(t)
	for name, args := range map[string][]string{
		"no format":       {"alpine", "oci:x"},
		"unknown format":  {"--format", "nydus", "alpine", "oci:x"},
		"one argument":    {"--format", "estargz", "alpine"},
		"digest":          {"--format", "estargz", "alpine", "registry.example/x@" + digest.FromString("").String()},
		"no folder":       {"--format", "estargz", "alpine", "oci:"},
		"no tag":          {"--format", "estargz", "alpine", "oci:x:a b"},
		"no platform":     {"--format", "estargz", "--platform", "a/b/c/d", "alpine", "oci:x"},
		"not a reference": {"--format", "estargz", "Alpine", "oci:x"},
	} {
		if r := p.Run(append([]string{"convert"}, args...)...); r.Code != testkit.Usage || r.Stdout != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
