//go:build linux

package registries

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	foreignDocker = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	foreignOCI    = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
)

// A windows image has a foreign base layer, as Microsoft publishes them, and a
// layer of its own, behind an index.
type windows struct {
	ref        string
	files      testkit.Server
	base, own  testkit.Layer
	baseDigest digest.Digest
}

func publishWindows(t *testing.T, reg *testkit.Registry, mediaType string, urls func(files string, d digest.Digest) []string) windows {
	t.Helper()
	w := windows{
		base: testkit.Encode(t, testkit.Gzip, testkit.Dir("Files"), testkit.Dir("Files/Windows"), testkit.File("Files/Windows/system.ini", []byte("[drivers]\r\n")),
			testkit.File("Files/large", testkit.Noise(7, 1_500_000)), testkit.Dir("Hives"), testkit.File("Hives/System_Base", testkit.Noise(8, 50_000))),
		own: testkit.Encode(t, testkit.Gzip, testkit.File("Files/app.exe", []byte("MZ")), testkit.Whiteout("Files/Windows/system.ini")),
	}
	w.baseDigest = w.base.Desc.Digest
	w.files = testkit.NewFiles(t, map[string][]byte{"layers/" + w.baseDigest.Encoded(): w.base.Blob})
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := testkit.NewLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.20348.2"}}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{w.base.DiffID, w.own.DiffID}}
	manifestType, configType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	if mediaType == foreignDocker {
		manifestType, configType = testkit.Schema2, "application/vnd.docker.container.image.v1+json"
		w.own.Desc.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
	c, err := l.Document(configType, config)
	if err != nil {
		t.Fatal(err)
	}
	foreign := w.base.Desc
	foreign.MediaType, foreign.URLs = mediaType, urls(w.files.Host(), foreign.Digest)
	if _, err := l.Blob(w.own.Desc.MediaType, w.own.Blob); err != nil {
		t.Fatal(err)
	}
	m, err := l.Document(manifestType, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: c,
		Layers: []ocispec.Descriptor{foreign, w.own.Desc},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Platform = &config.Platform
	index, err := l.Index(ocispec.MediaTypeImageIndex, m)
	if err == nil {
		err = l.Tag("ltsc", index)
	}
	if err != nil {
		t.Fatal(err)
	}
	reg.Push(t, dir, "ltsc", "win/dows")
	w.ref = reg.Ref("win/dows", "ltsc")
	return w
}

// both are an address where nobody is, and the right one.
func both(files string, d digest.Digest) []string {
	return []string{"http://127.0.0.1:1/gone/" + d.Encoded(), "http://" + files + "/layers/" + d.Encoded()}
}

// TestForeignLayers browses and mounts a Windows image.
func TestForeignLayers(t *testing.T) {
	t.Parallel()
	for _, mediaType := range []string{foreignDocker, foreignOCI} {
		t.Run(mediaType, func(t *testing.T) {
			t.Parallel()
			reg := testkit.NewRegistry(t)
			w := publishWindows(t, reg, mediaType, both)
			p := testkit.NewPeel(t)
			allowed := []string{"--platform", "windows/amd64", "--foreign-layers", "127.0.0.1:1", "--foreign-layers", w.files.Host()}
			if out := p.Must(append([]string{"ls", w.ref + ":/"}, allowed...)...).Stdout; strings.Join(strings.Fields(out), " ") != "Files Hives" {
				t.Errorf("ls: %q", out)
			}
			root := p.Mount(w.ref, allowed...)
			if got, err := os.ReadFile(filepath.Join(root, "Files", "large")); err != nil || !bytes.Equal(got, testkit.Noise(7, 1_500_000)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if _, err := os.Lstat(filepath.Join(root, "Files", "Windows", "system.ini")); !os.IsNotExist(err) {
				t.Errorf("what the upper layer hides: %v", err)
			}
			p.Umount(root)
			testkit.Harmless(t, "the server of foreign layers", w.files.Wire())
		})
	}
}

// TestForeignLayersRefused: without leave, or when the bytes are not right.
func TestForeignLayersRefused(t *testing.T) {
	t.Parallel()
	reg := testkit.NewRegistry(t)
	platform := []string{"--platform", "windows/amd64"}
	t.Run("not allowed", func(t *testing.T) {
		t.Parallel()
		w := publishWindows(t, testkit.NewRegistry(t), foreignDocker, both)
		p := testkit.NewPeel(t)
		r := p.Run(append([]string{"mount", w.ref, p.Dir()}, platform...)...)
		if r.Code == testkit.OK || !strings.Contains(r.Stderr, "--foreign-layers") || !strings.Contains(r.Stderr, w.files.Host()) {
			t.Errorf("exit code %d: the flag and the host should be named\n%s", r.Code, r.Stderr)
		}
		if n := len(w.files.Wire()); n > 0 {
			t.Errorf("%d requests to a host that was not allowed", n)
		}
	})
	t.Run("another host allowed", func(t *testing.T) {
		t.Parallel()
		w := publishWindows(t, testkit.NewRegistry(t), foreignDocker, both)
		p := testkit.NewPeel(t)
		r := p.Run(append([]string{"mount", w.ref, p.Dir(), "--foreign-layers", "*.example"}, platform...)...)
		if r.Code == testkit.OK || len(w.files.Wire()) > 0 {
			t.Errorf("exit code %d, %d requests\n%s", r.Code, len(w.files.Wire()), r.Stderr)
		}
	})
	t.Run("other bytes", func(t *testing.T) {
		t.Parallel()
		other := testkit.Encode(t, testkit.Gzip, testkit.File("other", testkit.Noise(9, 1_550_000)))
		liar := testkit.NewFiles(t, map[string][]byte{"layer": other.Blob})
		w := publishWindows(t, reg, foreignDocker, func(string, digest.Digest) []string { return []string{"http://" + liar.Host() + "/layer"} })
		p := testkit.NewPeel(t)
		r := p.Run(append([]string{"mount", w.ref, p.Dir(), "--foreign-layers", "*"}, platform...)...)
		if r.Code == testkit.OK || !strings.Contains(r.Stderr, w.baseDigest.Encoded()[:12]) {
			t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
		}
	})
}
