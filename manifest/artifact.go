package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationUnpack says, on a layer that has a title, that ORAS made a tar of
// a folder.
const annotationUnpack = "io.deis.oras.content.unpack"

const maxTitle = 4096 // bytes, as long as a path of an image

// tarEndings are those of media types whose content is a tar: images' own, and
// others that follow their pattern.
func tarEndings() []string {
	return []string{".tar", ".tar+gzip", ".tar+zstd", ".tar.gzip", ".tar.zstd"}
}

// checkFile accepts layers of artifacts: any media type, since a file is only
// bytes, but no title that cannot be a path.
func checkFile(d ocispec.Descriptor) error {
	title := d.Annotations[ocispec.AnnotationTitle]
	if len(title) > maxTitle || strings.ContainsRune(title, 0) {
		return fmt.Errorf("%w: the title %s, want a path of at most %d bytes", ErrMalformed, quote(title), maxTitle)
	}
	return nil
}

// content are the layers but for the placeholder of an artifact that has none
// (image-spec 1.1, manifest.md, "Guidance for an Empty Descriptor").
func content(layers []ocispec.Descriptor) []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(layers), func(d ocispec.Descriptor) bool {
		return d.MediaType == ocispec.MediaTypeEmptyJSON && d.Annotations[ocispec.AnnotationTitle] == ""
	})
}

// FileName is the path of the file that layer i of an artifact is, as somebody
// else wrote it; it may leave the root. It is "" if the layer is a tar.
func (m *Image) FileName(i int) string {
	if !m.Artifact {
		return ""
	}
	l := m.Layers[i]
	title := l.Annotations[ocispec.AnnotationTitle]
	isTar := slices.ContainsFunc(tarEndings(), func(s string) bool { return strings.HasSuffix(l.MediaType, s) })
	switch {
	case isTar && (title == "" || l.Annotations[annotationUnpack] == "true"):
		return ""
	case title == "":
		return l.Digest.Encoded()
	}
	return title
}

// artifactConfig is what stands for the configuration of an artifact, whose
// own is of a form that nobody here knows.
func artifactConfig(m *Image, diffIDs []digest.Digest) (*Config, error) {
	c := &Config{Image: ocispec.Image{Platform: m.Platform}}
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}
	var err error
	c.Raw, err = json.Marshal(c.Image)
	return c, err
}
