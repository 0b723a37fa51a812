//go:build linux

package testkit

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the driver registers itself
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// A Registry is distribution's own, on loopback, in this process, with files
// in the test's temporary folder.
type Registry struct {
	*server
	root string
}

// NewRegistry starts a registry.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	root := t.TempDir()
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem":  {"rootdirectory": root},
			"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
			"redirect":    {"disable": true},
			"delete":      {"enabled": true},
		},
	}
	config.Catalog.MaxEntries = 100
	config.Validation.Manifests.URLs.Allow = []string{".*"} // foreign layers lie anywhere
	config.HTTP.Secret = "only for tests"
	// The registry logs through the standard logger of its logging library,
	// which nothing else in a test process uses.
	logrus.SetOutput(io.Discard)
	app := handlers.NewApp(context.WithoutCancel(t.Context()), config)
	t.Cleanup(func() {
		if err := app.Shutdown(); err != nil {
			t.Errorf("registry: %v", err)
		}
	})
	return &Registry{server: newServer(t, app), root: root}
}

// Ref names an image of this registry.
func (r *Registry) Ref(repo, tag string) string { return r.Host() + "/" + repo + ":" + tag }

// BlobFile is where the registry keeps a blob, for tests that spoil it.
func (r *Registry) BlobFile(d ocispec.Descriptor) string {
	hex := d.Digest.Encoded()
	return filepath.Join(r.root, "docker", "registry", "v2", "blobs", "sha256", hex[:2], hex, "data")
}

// Push copies one tag of an OCI layout to the registry, an index with all its
// images, and returns the descriptor that the tag points to.
func (r *Registry) Push(t testing.TB, dir, tag, repo string) ocispec.Descriptor {
	t.Helper()
	return Push(t, r.Host(), dir, tag, repo)
}

// Push is Registry.Push to the registry at any host of this machine.
func Push(t testing.TB, host, dir, tag, repo string) ocispec.Descriptor {
	t.Helper()
	d, err := push(t.Context(), host+"/"+repo+":"+tag, dir, tag)
	if err != nil {
		t.Fatalf("pushing %s of %s: %v", tag, dir, err)
	}
	return d
}

func push(ctx context.Context, to, dir, tag string) (ocispec.Descriptor, error) {
	ref, err := name.NewTag(to, name.Insecure)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	all, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	listed, err := all.IndexManifest()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, m := range listed.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] != tag {
			continue
		}
		d := ocispec.Descriptor{MediaType: string(m.MediaType), Size: m.Size}
		d.Digest = digest.Digest(m.Digest.String())
		if m.MediaType.IsIndex() {
			index, err := all.ImageIndex(m.Digest)
			if err != nil {
				return d, err
			}
			return d, remote.WriteIndex(ref, index, remote.WithContext(ctx))
		}
		image, err := all.Image(m.Digest)
		if err != nil {
			return d, err
		}
		return d, remote.Write(ref, image, remote.WithContext(ctx))
	}
	return ocispec.Descriptor{}, errors.New("no such tag: " + strings.TrimSpace(tag))
}

// Publish writes layers as an image and pushes it as repo:tag.
func (r *Registry) Publish(t testing.TB, repo, tag string, layers ...Layer) ocispec.Descriptor {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := NewLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Image(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag(tag, d); err != nil {
		t.Fatal(err)
	}
	pushed := r.Push(t, dir, tag, repo)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	return pushed
}

// Encode builds one layer of entries in a form.
func Encode(t testing.TB, f Form, entries ...Entry) Layer {
	t.Helper()
	archive, err := Tar(entries...)
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.Encode(archive)
	if err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return l
}
