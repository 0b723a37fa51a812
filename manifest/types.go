package manifest

import (
	"fmt"
	"mime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types: distribution's manifest-v2-2.md and manifest-v2-1.md.
const (
	dockerList      = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerForeign   = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociLayerAbroad  = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	encryptedSuffix = "+encrypted"
	// As the first releases of ocicrypt wrote it.
	encryptedOldSuffix = "+enc"
)

type kind int

const (
	kindUnknown kind = iota
	kindIndex
	kindManifest
)

// kindOf counts entries without a type as manifests: what they are is settled
// when they are read.
func kindOf(mediaType string) kind {
	switch mediaType {
	case ocispec.MediaTypeImageIndex, dockerList:
		return kindIndex
	case ocispec.MediaTypeImageManifest, dockerManifest, "":
		return kindManifest
	}
	return kindUnknown
}

// plainType is a media type without its parameters.
func plainType(s string) string {
	if plain, _, err := mime.ParseMediaType(s); err == nil {
		return plain
	}
	return s
}

// isGeneric: types that plain web servers and old registries give any
// document, so that only the document itself can tell what it is.
func isGeneric(mediaType string) bool {
	return slices.Contains([]string{"", "application/json", "application/octet-stream", "text/plain"}, mediaType)
}

// errSchema1 is the error for a manifest of schema 1 where no tool writes one.
func errSchema1() error {
	return fmt.Errorf("a manifest of Docker schema 1 as an entry of an index is %w; name it by its own digest", ErrUnsupported)
}

// checkConfigType tells images from the other things that manifests describe.
func checkConfigType(m *ocispec.Manifest) error {
	t := m.Config.MediaType
	if t == ocispec.MediaTypeImageConfig || t == dockerConfig {
		return nil
	}
	// Old clients and registries gave configurations such types, though only
	// in Docker's manifests (distribution#1621, moby#22378, moby#30083).
	if m.MediaType == dockerManifest && (isGeneric(t) || t == "text/html") {
		return nil
	}
	if t == "" || t == ocispec.MediaTypeEmptyJSON {
		t = m.ArtifactType
	}
	return fmt.Errorf("%w but an artifact of type %s", ErrArtifact, quote(t))
}

// checkLayer accepts every type whose content is a tar, compressed or not.
func checkLayer(d ocispec.Descriptor) error {
	mediaType := d.MediaType
	if strings.HasSuffix(mediaType, encryptedSuffix) || strings.HasSuffix(mediaType, encryptedOldSuffix) {
		return fmt.Errorf("encrypted layers are %w (type %s)", ErrUnsupported, quote(mediaType))
	}
	for _, tar := range []string{ocispec.MediaTypeImageLayer, ociLayerAbroad} {
		if rest, ok := strings.CutPrefix(mediaType, tar); ok && slices.Contains([]string{"", "+gzip", "+zstd"}, rest) {
			return nil
		}
	}
	for _, tar := range []string{dockerLayer, dockerForeign} {
		if rest, ok := strings.CutPrefix(mediaType, tar); ok && slices.Contains([]string{"", ".gzip", ".zstd"}, rest) {
			return nil
		}
	}
	return fmt.Errorf("its type %s is %w, as it is not a tar archive", quote(mediaType), ErrUnsupported)
}
