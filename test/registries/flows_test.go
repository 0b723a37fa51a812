//go:build linux

package registries

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// TestFlows does everything that can be done with an image, against each
// registry, with a new cache each time.
func TestFlows(t *testing.T) {
	t.Parallel()
	dir, layers := layout(t)
	for _, s := range systems(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, tag := range []string{"docker", "oci"} {
				d := testkit.Push(t, s.push, dir, tag, "fl/ows")
				x := image{system: s, ref: s.host + "/fl/ows:" + tag, repo: s.host + "/fl/ows", tag: tag, d: d, layers: layers}
				t.Run(tag, func(t *testing.T) {
					t.Run("mount", x.mount)
					t.Run("browse", x.browse)
					t.Run("documents", x.documents)
					t.Run("fetch", x.fetch)
					t.Run("referrers", x.referrers)
					t.Run("pull", x.pull)
					t.Run("save", x.save)
				})
			}
			s.secrets(t)
		})
	}
}

// An image is one of a registry.
type image struct {
	system
	ref, repo, tag string
	d              ocispec.Descriptor
	layers         []testkit.Layer
}

func (x image) peel(t *testing.T) *testkit.Peel {
	t.Helper()
	p := testkit.NewPeel(t)
	x.prepare(t, p)
	return p
}

func (x image) mount(t *testing.T) {
	p := x.peel(t)
	root := p.Mount(x.ref)
	readsAll(t, root)
	p.Umount(root)
}

func readsAll(t *testing.T, root string) {
	t.Helper()
	for name, want := range contents() {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func (x image) browse(t *testing.T) {
	p := x.peel(t)
	if out := p.Must("ls", x.ref+":/etc").Stdout; strings.TrimSpace(out) != "hosts" {
		t.Errorf("ls: %q", out)
	}
	for name, want := range contents() {
		if out := p.Must("cat", x.ref+":/"+name).Stdout; out != string(want) {
			t.Errorf("cat %s: %d bytes", name, len(out))
		}
	}
	if out := p.Must("inspect", x.ref).Stdout; !strings.Contains(out, x.d.Digest.String()) {
		t.Errorf("inspect: no digest in\n%s", out)
	}
	if out := p.Must("layers", x.ref).Stdout; !strings.Contains(out, x.layers[1].Desc.Digest.Encoded()[:12]) {
		t.Errorf("layers:\n%s", out)
	}
}

func (x image) documents(t *testing.T) {
	p := x.peel(t)
	if out := p.Must("resolve", x.ref).Stdout; !strings.Contains(out, x.repo) || !strings.Contains(out, x.d.Digest.String()) {
		t.Errorf("resolve: %q", out)
	}
	manifest := p.Must("manifest", x.ref).Stdout
	var m ocispec.Manifest
	if err := json.Unmarshal([]byte(manifest), &m); err != nil || len(m.Layers) != len(x.layers) {
		t.Errorf("manifest: %v\n%s", err, manifest)
	}
	if out := p.Must("config", x.ref).Stdout; !strings.Contains(out, x.layers[0].DiffID.String()) {
		t.Errorf("config:\n%s", out)
	}
	tags := strings.Fields(p.Must("tags", x.repo).Stdout)
	for _, tag := range tags {
		if tag == x.tag {
			return
		}
	}
	t.Errorf("tags: %q", tags)
}

func (x image) fetch(t *testing.T) {
	p := x.peel(t)
	byName := p.Must("fetch", x.ref).Stdout
	if digest.FromString(byName) != x.d.Digest {
		t.Errorf("fetch: %d bytes of digest %s, want %s", len(byName), digest.FromString(byName), x.d.Digest)
	}
	if out := p.Must("fetch", x.repo, x.d.Digest.String()).Stdout; out != byName {
		t.Errorf("fetch of the manifest by digest: %d bytes", len(out))
	}
	l := x.layers[1]
	if out := p.Must("fetch", x.ref, l.Desc.Digest.String()).Stdout; out != string(l.Blob) {
		t.Errorf("fetch of a layer: %d bytes of %d", len(out), len(l.Blob))
	}
	var m ocispec.Manifest
	if err := json.Unmarshal([]byte(byName), &m); err != nil {
		t.Fatal(err)
	}
	if out := p.Must("fetch", x.ref, m.Config.Digest.String()).Stdout; digest.FromString(out) != m.Config.Digest {
		t.Errorf("fetch of the config:\n%s", out)
	}
	if out := p.Must("fetch", "--range", "1000-1999", x.ref, l.Desc.Digest.String()).Stdout; out != string(l.Blob[1000:2000]) {
		t.Errorf("fetch of a range: %d bytes", len(out))
	}
	none := "sha256:" + strings.Repeat("0", 64)
	if r := p.Run("fetch", x.ref, none); r.Code != testkit.NotFound || !strings.Contains(r.Stderr, none[:19]) {
		t.Errorf("fetch of what is not there: exit code %d\n%s", r.Code, r.Stderr)
	}
}

// referrers attaches a document to the image, in the way that the registry
// knows: by its subject, or under a tag.
func (x image) referrers(t *testing.T) {
	const kind = "application/vnd.example.note"
	p := x.peel(t)
	testkit.PutBlob(t, x.push, "fl/ows", []byte("{}"))
	note := testkit.PutBlob(t, x.push, "fl/ows", []byte("a note on "+x.tag))
	subject := x.d
	subject.Annotations = nil
	a := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
		Config: ocispec.DescriptorEmptyJSON, Subject: &subject,
		Layers: []ocispec.Descriptor{{MediaType: "text/plain", Digest: note, Size: int64(len("a note on " + x.tag))}},
	}
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: a.MediaType, ArtifactType: kind, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	testkit.PutManifest(t, x.push, "fl/ows", d.Digest.String(), d.MediaType, raw)
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	testkit.PutManifest(t, x.push, "fl/ows", strings.Replace(x.d.Digest.String(), ":", "-", 1), ocispec.MediaTypeImageIndex, index)
	out := p.Must("referrers", x.ref).Stdout
	if !strings.Contains(out, d.Digest.String()) || !strings.Contains(out, kind) {
		t.Errorf("referrers:\n%s", out)
	}
	if out := p.Must("fetch", x.repo, note.String()).Stdout; out != "a note on "+x.tag {
		t.Errorf("the note: %q", out)
	}
}

func (x image) pull(t *testing.T) {
	p := x.peel(t)
	p.Must("pull", x.ref)
	root := p.Mount(x.ref, "--pull=never")
	readsAll(t, root)
	p.Umount(root)
	p.Must("pull", x.repo+"@"+x.d.Digest.String())
}

func (x image) save(t *testing.T) {
	p := x.peel(t)
	dir := t.TempDir()
	for _, to := range []string{"oci:" + filepath.Join(dir, "oci"), "dir:" + filepath.Join(dir, "dir"), "docker-archive:" + filepath.Join(dir, "a.tar")} {
		p.Must("save", x.ref, "-o", to)
		if to[0] != 'd' || strings.HasPrefix(to, "dir:") {
			if raw := testkit.RunSkopeo(t, "inspect", "--raw", to); digest.FromString(raw) != x.d.Digest {
				t.Errorf("%s has the digest %s, want %s", to, digest.FromString(raw), x.d.Digest)
			}
		}
		testkit.RunSkopeo(t, "inspect", to)
	}
}
