package dockersave

import (
	"bytes"
	"context"
	"io"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// OCIArchive is an image layout in a tar (image-spec 1.1, image-layout.md).
type OCIArchive struct {
	tar   *tarball
	index ocispec.Index
}

// NewOCIArchive begins an archive.
func NewOCIArchive(w io.Writer) *OCIArchive {
	return &OCIArchive{tar: newTarball(w), index: ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}}
}

func blobName(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Has reports whether the blob was written.
func (a *OCIArchive) Has(d digest.Digest) bool { return a.tar.written[blobName(d)] }

// Blob writes a blob, which r yields.
func (a *OCIArchive) Blob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	if err := d.Digest.Validate(); err != nil { // before it becomes a name
		return err
	}
	return a.tar.blob(ctx, blobName(d.Digest), d, r)
}

// Manifest writes a manifest or index that users may ask for, by the name ref
// if that is not empty.
func (a *OCIArchive) Manifest(ctx context.Context, d ocispec.Descriptor, raw []byte, ref string) error {
	if !a.Has(d.Digest) {
		if err := a.Blob(ctx, d, bytes.NewReader(raw)); err != nil {
			return err
		}
	}
	d = ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
	if ref != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: ref}
	}
	a.index.Manifests = slices.DeleteFunc(a.index.Manifests, func(o ocispec.Descriptor) bool {
		name := o.Annotations[ocispec.AnnotationRefName]
		return name == ref && (ref != "" || o.Digest == d.Digest)
	})
	a.index.Manifests = append(a.index.Manifests, d)
	return nil
}

// Close ends the archive, but closes no file.
func (a *OCIArchive) Close() error {
	if err := a.tar.json(ocispec.ImageIndexFile, a.index); err != nil {
		return err
	}
	if err := a.tar.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return a.tar.tar.Close()
}
