//go:build linux

package index

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// trusts are what inspect says vouches for each layer.
func trusts(t *testing.T, p *testkit.Peel, ref string) []string {
	t.Helper()
	var out []string
	for _, l := range inspect(t, p, ref) {
		out = append(out, l.Trust)
	}
	return out
}

func leftNothing(t *testing.T, p *testkit.Peel) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(p.Cache, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestVerify: a claimed image of any form is proved once, and counts as proved
// from then on, also where nothing else will do.
func TestVerify(t *testing.T) {
	t.Parallel()
	layout, want, ok := vectors(t)
	if !ok {
		return
	}
	for _, tc := range []struct {
		tag   string
		clock testkit.Clock
	}{
		{"esgz", testkit.WholeSeconds},
		{"esgz-min", testkit.WholeSeconds},
		{"zstdchunked", testkit.Exact},
		{"zstdchunked-early", testkit.WholeSeconds},
		{"soci-v2", testkit.Exact},
	} {
		t.Run(tc.tag, func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			reg.Push(t, layout, tc.tag, "tricky")
			ref := reg.Ref("tricky", tc.tag)
			p := testkit.NewPeel(t)
			if tc.tag != "soci-v2" { // whose layers are read whole then
				r := p.Run("mount", "--require", "proved", ref, p.Dir())
				if r.Code != testkit.Failed || !strings.Contains(r.Stderr, "peel verify "+ref) {
					t.Errorf("before: %+v", r)
				}
			}
			if got := trusts(t, p, ref); slices.Contains(got, "proved") {
				t.Errorf("before: %v", got)
			}
			before := p.Mount(ref)
			p.Must("verify", ref)
			if d := cmp.Diff(slices.Repeat([]string{"proved"}, 3), trusts(t, p, ref)); d != "" {
				t.Error(d)
			}
			leftNothing(t, p)
			for _, root := range []string{before, p.Mount(ref, "--require", "proved")} {
				got, err := testkit.List(root)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range testkit.Differences(want, got, tc.clock) {
					t.Error(d)
				}
			}
			if again := p.Must("verify", ref); !strings.Contains(again.Stdout, "before") {
				t.Errorf("verified again: %+v", again)
			}
		})
	}
}

// TestVerifyPlain: layers that were read whole need no more.
func TestVerifyPlain(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	reg.Publish(t, "plain", "v1", layerOf(t, 1, 2))
	proxy := testkit.NewProxy(t, reg.Host())
	p := testkit.NewPeel(t)
	p.Must("inspect", proxy.Ref("plain", "v1"))
	proxy.Log()
	if r := p.Must("verify", proxy.Ref("plain", "v1")); !strings.Contains(r.Stdout, "read whole") {
		t.Errorf("%+v", r)
	}
	if asked := proxy.Log(); len(asked) > 0 {
		t.Errorf("it asked for %+v", asked)
	}
	if r := p.Run("index", "verify", proxy.Ref("plain", "v1")); r.Code != testkit.NotFound || !strings.Contains(r.Stderr, "index push") {
		t.Errorf("%+v", r)
	}
}

// TestVerifyWrongBlob: a lazy layer whose blob is not the one that the manifest
// names cannot be proved.
func TestVerifyWrongBlob(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	l := testkit.Encode(t, testkit.Stargz, testkit.File("a", testkit.Noise(1, 3_000_000)), testkit.File("b", testkit.Noise(2, 3_000_000)))
	reg.Publish(t, "wrong", "v1", l)
	p := testkit.NewPeel(t)
	p.Must("inspect", reg.Ref("wrong", "v1"))
	file := reg.BlobFile(l.Desc)
	blob, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blob[len(blob)/3] ^= 1
	if err := os.WriteFile(file, blob, 0o644); err != nil {
		t.Fatal(err)
	}
	r := p.Run("verify", reg.Ref("wrong", "v1"))
	if r.Code != testkit.Unverified || !strings.Contains(r.Stdout, l.Desc.Digest.String()) {
		t.Errorf("%+v", r)
	}
	if got := trusts(t, p, reg.Ref("wrong", "v1")); got[0] != "claimed" {
		t.Errorf("%v", got)
	}
}

// TestVerifyInterrupted: Ctrl-C leaves nothing.
func TestVerifyInterrupted(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	l := testkit.Encode(t, testkit.Stargz, testkit.File("a", testkit.Noise(1, 8<<20)))
	reg.Publish(t, "stalls", "v1", l)
	proxy := testkit.NewProxy(t, reg.Host())
	p := testkit.NewPeel(t)
	p.Must("inspect", proxy.Ref("stalls", "v1"))
	release := make(chan struct{})
	defer close(release)
	stalled := proxy.Stalls(l.Desc.Digest.String(), 4<<20, release)
	cmd := p.Command(t.Context(), "verify", proxy.Ref("stalls", "v1"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !p.Until(time.Minute, stalled) {
		t.Fatal("it never asked for the layer")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != testkit.Interrupted {
		t.Errorf("exit code %d: %v", code, err)
	}
	leftNothing(t, p)
}

// TestPushSOCI: the image with SOCI indexes that peel makes shows the same, is
// proved, and is the same wherever it is made.
func TestPushSOCI(t *testing.T) {
	t.Parallel()
	layout, want, ok := vectors(t)
	if !ok {
		return
	}
	for _, tag := range []string{"gz", "tar", "gz-members"} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			reg.Push(t, layout, tag, "tricky")
			flags := []string{"--format", "soci", "--min-layer-size", "300", "--span-size", "1048576"}
			p := testkit.NewPeel(t)
			made := p.Must(append([]string{"index", "push", "--to", reg.Ref("made", tag), reg.Ref("tricky", tag)}, flags...)...).Stdout
			dir := filepath.Join(t.TempDir(), "layout")
			written := p.Must(append([]string{"index", "create", "--output", "oci:" + dir, reg.Ref("tricky", tag)}, flags...)...).Stdout
			_, a, _ := strings.Cut(made, "@")
			_, b, _ := strings.Cut(written, "@")
			if a != b {
				t.Errorf("pushed\n%s\nwritten\n%s", made, written)
			}
			ref := reg.Ref("made", tag)
			var from []string
			for _, l := range inspect(t, p, ref) {
				what, _, _ := strings.Cut(l.Origin, " sha256:")
				from = append(from, l.Access+" "+what)
			}
			lazy := "lazy SOCI index v2"
			if d := cmp.Diff(lazy, from[0]); d != "" || from[1] != lazy {
				t.Errorf("%v", from)
			}
			p.Must("index", "verify", ref)
			got, err := testkit.List(p.Mount(ref))
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range testkit.Differences(want, got, testkit.Exact) {
				t.Error(d)
			}
			p.Must("verify", ref)
		})
	}
}

// TestPushSOCIPlatforms: all images of an index get SOCI indexes, what is
// attested of them stays, and doing it again changes nothing.
func TestPushSOCIPlatforms(t *testing.T) {
	t.Parallel()
	l, err := testkit.NewLayout(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	shared := layerOf(t, 1, 2)
	var all []ocispec.Descriptor
	for i, arch := range []string{"amd64", "arm64"} {
		d, err := l.DockerImage(shared, testkit.Encode(t, testkit.Gzip, testkit.File("arch", text(uint64(i), 2_000_000))))
		if err != nil {
			t.Fatal(err)
		}
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		all = append(all, d)
	}
	attestation, err := l.Image(testkit.Encode(t, testkit.PlainTar, testkit.File("statement", []byte("{}"))))
	if err != nil {
		t.Fatal(err)
	}
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{
		"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": all[0].Digest.String(),
	}
	d, err := l.Index(ocispec.MediaTypeImageIndex, append(all, attestation)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("v1", d); err != nil {
		t.Fatal(err)
	}
	reg := testkit.NewRegistry(t)
	reg.Push(t, l.Dir, "v1", "multi")
	p := testkit.NewPeel(t)
	flags := []string{"index", "push", "--format", "soci", "--min-layer-size", "0"}
	once := p.Must(append(flags, "--to", reg.Ref("soci", "v1"), reg.Ref("multi", "v1"))...).Stdout
	twice := p.Must(append(flags, "--to", reg.Ref("again", "v1"), reg.Ref("soci", "v1"))...).Stdout
	_, a, _ := strings.Cut(once, "@")
	_, b, _ := strings.Cut(twice, "@")
	if a != b {
		t.Errorf("made\n%s, of that\n%s", once, twice)
	}
	index := indexOf(t, reg.Ref("soci", "v1"))
	if len(index.Manifests) != 5 {
		t.Fatalf("%+v", index.Manifests)
	}
	for i, arch := range []string{"amd64", "arm64"} {
		image, soci := index.Manifests[i], index.Manifests[3+i]
		if image.Platform.Architecture != arch || soci.Platform.Architecture != arch || image.MediaType != types.OCIManifestSchema1 ||
			image.Annotations["com.amazon.soci.index-digest"] != soci.Digest.String() ||
			soci.Annotations["com.amazon.soci.image-manifest-digest"] != image.Digest.String() {
			t.Errorf("%+v and %+v", image, soci)
		}
		for _, l := range inspect(t, p, reg.Ref("soci", "v1"), "--platform", "linux/"+arch) {
			if l.Access != "lazy" || !strings.Contains(l.Origin, "SOCI") {
				t.Errorf("%s: %+v", arch, l)
			}
		}
	}
	if got := index.Manifests[2].Annotations["vnd.docker.reference.digest"]; got != index.Manifests[0].Digest.String() {
		t.Errorf("the attestation is of %s", got)
	}
	one := p.Must(append(flags, "--platform", "linux/arm64", "--to", reg.Ref("one", "v1"), reg.Ref("multi", "v1"))...).Stdout
	if index := indexOf(t, reg.Ref("one", "v1")); len(index.Manifests) != 2 || index.Manifests[0].Platform.Architecture != "arm64" {
		t.Errorf("%s: %+v", one, index)
	}
	r := p.Run("index", "push", "--format", "soci", "--to", reg.Ref("none", "v1"), reg.Ref("multi", "v1"))
	if r.Code != testkit.Failed || !strings.Contains(r.Stderr, "--min-layer-size") {
		t.Errorf("small layers: %+v", r)
	}
}

func indexOf(t *testing.T, ref string) *v1.IndexManifest {
	t.Helper()
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(tag, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return m
}
