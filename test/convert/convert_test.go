//go:build linux

package convert

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// TestTree converts an awkward image in every form, and compares what peel
// shows lazily, and what umoci unpacks.
func TestTree(t *testing.T) {
	t.Parallel()
	vectors := filepath.Join("..", "..", "..", "shared", "vectors")
	want, err := testkit.ReadListing(filepath.Join(vectors, "tricky.expected.jsonl"))
	if err != nil {
		t.Logf("the test vectors are not here: %v", err)
		return
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

// TestDebian converts larger images: one with Docker's types behind a list of
// platforms, one whose layers are of several formats, and one of skopeo's.
func TestDebian(t *testing.T) {
	t.Parallel()
	for _, s := range testkit.Debian(t) {
		reg := testkit.NewRegistry(t)
		for _, tag := range []string{testkit.Docker, testkit.Mixed, testkit.Skopeo} {
			reg.Push(t, s.Layout, tag, s.Name)
			for format, name := range formats {
				t.Run(s.Name+"/"+tag+"/"+format, func(t *testing.T) {
					t.Parallel()
					p := testkit.NewPeel(t)
					dst := reg.Ref(repo(format, s.Name), tag)
					converted(t, p, "--format", format, reg.Ref(s.Name, tag), dst)
					if d := cmp.Diff(lazily(name, 3), layers(t, p, dst)); d != "" {
						t.Error(d)
					}
					got, err := testkit.List(p.Mount(dst))
					if err != nil {
						t.Fatal(err)
					}
					clock := testkit.Exact
					if tag != testkit.Docker {
						clock = testkit.WholeSeconds // of layers that stay as they are
					}
					if format == "zstd:chunked" {
						got = without(got)
					}
					for _, d := range testkit.Differences(s.Expected, got, clock) {
						t.Error(d)
					}
				})
			}
		}
	}
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
