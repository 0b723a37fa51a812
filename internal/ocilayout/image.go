package ocilayout

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageName is where containerd keeps the whole name of an image, whose tag
// alone may be in the annotation of image-spec.
const imageName = "io.containerd.image.name"

// Name is what an image is to be called in index.json.
type Name struct {
	// Tag is org.opencontainers.image.ref.name, unless another image has it.
	Tag string
	// Image is the whole name, with registry and tag, for
	// io.containerd.image.name: what tells images apart whose tag is the same.
	// "" if there is none; then only images of one digest are the same.
	Image string
	// Whole stands for Tag if another image has that; "" fails instead.
	Whole string
}

// PutImage stores a manifest or index, names it in index.json, and returns what
// it is called there. Unlike PutManifest it takes the name of no other image:
// the error is ErrTaken if there is no name left. What the image was before it
// is there no longer under this name.
func (l *Layout) PutImage(ctx context.Context, raw []byte, mediaType string, n Name) (called string, err error) {
	d, err := l.PutManifest(ctx, raw, mediaType, "")
	if err != nil {
		return "", err
	}
	if err := l.locked(func() error { called, err = l.nameImage(d, n); return err }); err != nil {
		return "", l.fail(err)
	}
	return called, nil
}

// nameImage changes index.json. The lock must be held.
func (l *Layout) nameImage(d ocispec.Descriptor, n Name) (string, error) {
	index, err := l.readIndex()
	if err != nil {
		return "", err
	}
	called := n.Tag
	if slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return n.isOfAnother(d, m) }) {
		if called = n.Whole; called == "" {
			return "", fmt.Errorf("%w: %.100q", ErrTaken, n.Tag)
		}
	}
	if n.Image == "" && slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool {
		return m.Digest == d.Digest && m.Annotations[ocispec.AnnotationRefName] == called
	}) {
		return called, nil // what is known of it stays
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
		ref, image := m.Annotations[ocispec.AnnotationRefName], m.Annotations[imageName]
		return ref == called && (image == "" || n.Image == "") || image == n.Image && (ref == n.Tag || ref == n.Whole)
	})
	d.Annotations = map[string]string{ocispec.AnnotationRefName: called}
	if n.Image != "" {
		d.Annotations[imageName] = n.Image
	}
	index.Manifests = append(index.Manifests, d)
	return called, l.writeJSON(ocispec.ImageIndexFile, index)
}

// isOfAnother reports whether m has the tag, and is not known to be the image
// that d is.
func (n Name) isOfAnother(d, m ocispec.Descriptor) bool {
	if m.Annotations[ocispec.AnnotationRefName] != n.Tag || n.Tag == n.Whole {
		return false
	}
	if image := m.Annotations[imageName]; image != "" && n.Image != "" {
		return image != n.Image
	}
	return m.Digest != d.Digest
}
