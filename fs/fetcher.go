package fs

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/manifest"
)

// cachedFetcher puts the cache before a registry: what has a digest and was
// seen before is not asked for again.
type cachedFetcher struct {
	from  manifest.Fetcher
	docs  Docs
	pull  Pull
	asked atomic.Bool // the registry had to be asked
}

func (c *cachedFetcher) ask(what string) error {
	if c.pull == PullNever {
		return fmt.Errorf("%s: not in the cache, and asking its registry is ruled out: %w", what, errdefs.ErrNotFound)
	}
	c.asked.Store(true)
	return nil
}

// Manifest is manifest.Fetcher's.
func (c *cachedFetcher) Manifest(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	if pinned, ok := ref.(reference.Digested); ok {
		if raw, ok := c.known("image/manifest", pinned.Digest()); ok {
			mediaType, err := manifest.MediaType(raw)
			return ocispec.Descriptor{MediaType: mediaType, Digest: pinned.Digest(), Size: int64(len(raw))}, raw, err
		}
	}
	if err := c.ask(ref.String()); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	d, raw, err := c.from.Manifest(ctx, ref)
	if err != nil {
		return d, raw, err
	}
	return d, raw, c.keep("image/manifest", d, raw)
}

// Blob is manifest.Fetcher's.
func (c *cachedFetcher) Blob(ctx context.Context, ref reference.Named, d ocispec.Descriptor) ([]byte, error) {
	if raw, ok := c.known("image/config", d.Digest); ok {
		return raw, nil
	}
	if err := c.ask(ref.Name() + "@" + d.Digest.String()); err != nil {
		return nil, err
	}
	raw, err := c.from.Blob(ctx, ref, d)
	if err != nil {
		return nil, err
	}
	return raw, c.keep("image/config", d, raw)
}

// known returns a document of the cache if its bytes are still what they were.
func (c *cachedFetcher) known(kind string, d digest.Digest) ([]byte, bool) {
	raw, err := c.docs.Read(kind, d)
	if err != nil || d.Algorithm().FromBytes(raw) != d {
		return nil, false
	}
	return raw, true
}

// keep stores a document that its digest proves; one that it does not prove is
// the caller's to refuse.
func (c *cachedFetcher) keep(kind string, d ocispec.Descriptor, raw []byte) error {
	if manifest.Verify(raw, d) != nil {
		return nil
	}
	return c.docs.Write(kind, d.Digest, raw)
}
