//go:build linux

package testkit

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// A Layout is an OCI image layout on disk.
type Layout struct {
	Dir   string
	index ocispec.Index
}

// NewLayout makes an empty layout in dir, which it creates.
func NewLayout(dir string) (*Layout, error) {
	l := &Layout{Dir: dir, index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	mark := `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`
	return l, os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), []byte(mark), 0o644)
}

// Blob writes data as a blob of the layout.
func (l *Layout) Blob(mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, os.WriteFile(filepath.Join(l.Dir, "blobs", "sha256", d.Digest.Encoded()), data, 0o644)
}

// Document writes v as a JSON blob of the layout.
func (l *Layout) Document(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.Blob(mediaType, data)
}

// Image writes an image of layers, bottom first, for linux/amd64 and returns
// its manifest's descriptor.
func (l *Layout) Image(layers ...Layer) (ocispec.Descriptor, error) {
	return l.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, layers)
}

// DockerImage is Image with Docker's media types; its layers are gzip. Its
// config has a history, without which registries cannot make schema 1 of it.
func (l *Layout) DockerImage(layers ...Layer) (ocispec.Descriptor, error) {
	docker := make([]Layer, len(layers))
	for i, layer := range layers {
		layer.Desc.MediaType = dockerLayer
		docker[i] = layer
	}
	return l.image(dockerManifest, dockerConfig, docker)
}

func (l *Layout) image(manifestType, configType string, layers []Layer) (ocispec.Descriptor, error) {
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	config.RootFS.Type = "layers"
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.DiffID)
		if _, err := l.Blob(layer.Desc.MediaType, layer.Blob); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if configType == dockerConfig {
		for range layers {
			config.History = append(config.History, ocispec.History{CreatedBy: "a test", Created: &Epoch})
		}
	}
	c, err := l.Document(configType, config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m := manifest(c, layers)
	m.MediaType = manifestType
	return l.Document(manifestType, m)
}

// Tag names a manifest or an index of the layout.
func (l *Layout) Tag(tag string, d ocispec.Descriptor) error {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	l.index.Manifests = append(l.index.Manifests, d)
	data, err := json.Marshal(l.index)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.Dir, ocispec.ImageIndexFile), data, 0o644)
}

// Index writes an image index over manifests, each with its platform.
func (l *Layout) Index(mediaType string, manifests ...ocispec.Descriptor) (ocispec.Descriptor, error) {
	return l.Document(mediaType, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: manifests,
	})
}
