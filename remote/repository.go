package remote

import (
	"context"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repository is a repository of a registry to write images to, blobs first.
type Repository struct {
	client *Client
	name   reference.Named
}

// Repository names a repository; tag and digest of ref do not matter.
func (c *Client) Repository(ref reference.Named) *Repository {
	return &Repository{c, reference.TrimNamed(ref)}
}

// HasBlob is Client.HasBlob.
func (r *Repository) HasBlob(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	return r.client.HasBlob(ctx, r.name, d)
}

// Create is Client.Upload.
func (r *Repository) Create(ctx context.Context) (*Upload, error) {
	return r.client.Upload(ctx, r.name)
}

// PutManifest is Client.PushManifest. Without a tag the manifest is stored
// under its digest alone.
func (r *Repository) PutManifest(ctx context.Context, raw []byte, mediaType, tag string) (ocispec.Descriptor, error) {
	var ref reference.Named
	var err error
	if tag == "" {
		ref, err = reference.WithDigest(r.name, digest.FromBytes(raw))
	} else {
		ref, err = reference.WithTag(r.name, tag)
	}
	if err != nil {
		return ocispec.Descriptor{}, r.client.boundary(reference.Domain(r.name), "push "+r.name.Name(), &fault{class: ErrUsage, text: "tag", cause: err})
	}
	return r.client.PushManifest(ctx, ref, mediaType, raw)
}
