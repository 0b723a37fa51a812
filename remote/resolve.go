package remote

import (
	"context"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetcher fetches the objects of one repository by their descriptors.
type Fetcher struct {
	client *Client
	repo   reference.Named
}

// Resolve asks what ref names. The name is ref in full, with its tag or digest;
// the Fetcher fetches from its repository.
func (c *Client) Resolve(ctx context.Context, ref reference.Named) (name string, d ocispec.Descriptor, f *Fetcher, err error) {
	d, _, err = c.Manifest(ctx, ref)
	if err != nil {
		return "", ocispec.Descriptor{}, nil, err
	}
	return reference.TagNameOnly(ref).String(), d, &Fetcher{c, reference.TrimNamed(ref)}, nil
}

// Fetch streams an object, a manifest or a blob, whichever there is.
func (f *Fetcher) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return f.client.Open(f.repo, d).ReadRange(ctx, 0, d.Size)
}

// FetchRange streams the bytes [off, off+n) of an object.
func (f *Fetcher) FetchRange(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	return f.client.Open(f.repo, d).ReadRange(ctx, off, n)
}

// BlobSize is the length of a blob in bytes, as the registry tells it.
func (c *Client) BlobSize(ctx context.Context, ref reference.Named, d digest.Digest) (int64, error) {
	return 0, c.boundary(reference.Domain(ref), ref.Name()+"@"+d.String(), &fault{class: ErrNotFound, text: "size"})
}
