package manifest

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetcher is where documents come from: a registry, or a cache before one.
// What it returns is checked here; a Fetcher has only to bound it.
type Fetcher interface {
	// Manifest returns the document that ref names by its digest, or by its
	// tag if it has no digest. The descriptor has the digest and size of the
	// bytes, and the media type as the server states it, which may be empty.
	// The digest of a signed manifest of Docker schema 1 may be that of its
	// payload.
	Manifest(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error)
	// Blob returns the blob that d describes from the repository of ref.
	Blob(ctx context.Context, ref reference.Named, d ocispec.Descriptor) ([]byte, error)
}

// Sizer is what a Fetcher is as well if it can tell sizes of blobs, which
// manifests of Docker schema 1 do not state.
type Sizer interface {
	// BlobSize returns the size, in bytes, of the blob d of the repository of ref.
	BlobSize(ctx context.Context, ref reference.Named, d digest.Digest) (int64, error)
}

// Image is one platform's image. It is not changed after Resolve, except by
// CompleteConfig.
type Image struct {
	Reference Reference
	Platform  ocispec.Platform     // what was asked for
	Top       ocispec.Descriptor   // what the reference names: an index, Desc itself, or Named
	Named     *Attached            // the layers' indexes, if the reference names these; else nil
	Desc      ocispec.Descriptor   // the platform's manifest
	Manifest  ocispec.Manifest     // OCI or Docker schema 2, which have the same shape
	Raw       []byte               // the bytes of Manifest
	Layers    []ocispec.Descriptor // of Manifest, bottom first, but for those without content
	// Schema1: the image has a manifest of Docker schema 1, which is in Raw.
	// Manifest is what it means, in the form of schema 2, and its Config is the
	// zero value until CompleteConfig.
	Schema1 bool
	// Artifact: it is something else than a container image. Its layers may be
	// files, see FileName, of any media type.
	Artifact bool

	v1 *schema1Image // nil, unless Schema1
}

// DiffIDsUnknown reports whether nobody says the digests of the uncompressed
// layers before these were read: LoadConfig's result has none, and
// CompleteConfig adds them.
func (m *Image) DiffIDsUnknown() bool { return m.Schema1 || m.Artifact }

// Blobs are all that Raw names, each once: configuration and layers, also
// layers without content. A size of -1 is not known.
func (m *Image) Blobs() []ocispec.Descriptor {
	list := append([]ocispec.Descriptor{m.Manifest.Config}, m.Manifest.Layers...)
	if m.v1 != nil {
		list = m.v1.describe(m.Layers)
	}
	seen := map[digest.Digest]bool{}
	return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool {
		again := seen[d.Digest]
		seen[d.Digest] = true
		return again
	})
}

// V1ID is the ID that layer i had when each layer was an image of its own; ""
// unless the manifest is of Docker schema 1.
func (m *Image) V1ID(i int) string {
	if m.v1 == nil {
		return ""
	}
	return m.v1.layers()[i].ID
}

// ReadManifest verifies and reads a document, of whatever it is the manifest:
// exactly one of manifest and index is not nil, or error is. Of a manifest of
// Docker schema 1, config and sizes are missing.
func ReadManifest(d ocispec.Descriptor, raw []byte) (*ocispec.Manifest, *ocispec.Index, error) {
	doc, err := read(d, raw)
	if err == nil && doc.manifest != nil && doc.v1 == nil {
		err = checkBlobs(doc.manifest, func(ocispec.Descriptor) error { return nil })
	}
	if err != nil {
		return nil, nil, err
	}
	return doc.manifest, doc.index, nil
}

// Resolve finds the image that ref names for platform p, the zero value of
// which is DefaultPlatform. It costs one call of f
// for each of the index and the manifest, more only if the index has no entry
// for exactly p: for the indexes within it and for entries that do not tell
// their platform.
func Resolve(ctx context.Context, f Fetcher, ref Reference, p ocispec.Platform) (*Image, error) {
	if ref.named == nil {
		return nil, fmt.Errorf("%w: it is empty", ErrReference)
	}
	if p.OS == "" && p.Architecture == "" {
		p = DefaultPlatform()
	}
	w := &walk{fetcher: f, ref: ref, want: p, match: platforms.Only(p), left: maxDocuments}
	top, err := w.top(ctx)
	if err != nil {
		return nil, err
	}
	doc := top
	if top.index != nil {
		if doc, err = w.pick(ctx, top); err != nil {
			return nil, err
		}
	}
	if err := w.sizes(ctx, doc); err != nil {
		return nil, about(ref, err)
	}
	named := top.desc
	if w.named != nil {
		named = w.named.Desc
	}
	return &Image{
		Reference: ref,
		Platform:  p,
		Top:       named,
		Named:     w.named,
		Desc:      doc.desc,
		Manifest:  *doc.manifest,
		Raw:       doc.raw,
		Layers:    content(doc.manifest.Layers),
		Schema1:   doc.v1 != nil,
		Artifact:  doc.artifact,
		v1:        doc.v1,
	}, nil
}
