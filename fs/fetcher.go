package fs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/manifest"
)

// cachedFetcher puts the cache before a registry: what has a digest and was
// seen before is not asked for again, and of several processes that want it at
// once one asks. A place on this machine has no cache before it.
type cachedFetcher struct {
	from  manifest.Fetcher
	docs  Cache
	pull  Pull
	local bool        // from is a place on this machine
	asked atomic.Bool // the registry had to be asked

	mu    sync.Mutex // guards sizes
	sizes map[digest.Digest]int64
}

// mayAsk is an error if the registry must not be asked for what the cache lacks.
func (c *cachedFetcher) mayAsk(what string) error {
	if c.pull == PullNever && !c.local {
		return fmt.Errorf("%s: not in the cache, and asking its registry is ruled out: %w", what, errdefs.ErrNotFound)
	}
	return nil
}

// ask notes that the registry is asked, if it may be.
func (c *cachedFetcher) ask(what string) error {
	err := c.mayAsk(what)
	if err == nil && !c.local {
		c.asked.Store(true)
	}
	return err
}

// Manifest is manifest.Fetcher's.
func (c *cachedFetcher) Manifest(ctx context.Context, ref reference.Named) (d ocispec.Descriptor, raw []byte, err error) {
	pinned, ok := ref.(reference.Digested)
	if !ok || c.local {
		if err := c.ask(ref.String()); err != nil {
			return d, nil, err
		}
		if d, raw, err = c.from.Manifest(ctx, ref); err != nil || c.local {
			return d, raw, err
		}
		return d, raw, c.keep("image/manifest", d, raw)
	}
	said := "" // by the registry, of the media type
	raw, err = c.once(ctx, document{"image/manifest", ref.String(), pinned.Digest()}, func() (ocispec.Descriptor, []byte, error) {
		d, raw, err := c.from.Manifest(ctx, ref)
		said = d.MediaType
		return d, raw, err
	})
	if err == nil && said == "" {
		said, err = manifest.MediaType(raw)
	}
	return ocispec.Descriptor{MediaType: said, Digest: pinned.Digest(), Size: int64(len(raw))}, raw, err
}

// Blob is manifest.Fetcher's.
func (c *cachedFetcher) Blob(ctx context.Context, ref reference.Named, d ocispec.Descriptor) ([]byte, error) {
	if c.local {
		return c.from.Blob(ctx, ref, d)
	}
	return c.once(ctx, document{"image/config", ref.Name() + "@" + d.Digest.String(), d.Digest}, func() (ocispec.Descriptor, []byte, error) {
		raw, err := c.from.Blob(ctx, ref, d)
		return d, raw, err
	})
}

// document is one that has a digest.
type document struct {
	kind string
	name string // for people
	key  digest.Digest
}

// once returns a document of the cache, or else fetches it, or waits while
// another process does.
func (c *cachedFetcher) once(ctx context.Context, doc document, fetch func() (ocispec.Descriptor, []byte, error)) (raw []byte, err error) {
	if raw, ok := c.known(doc); ok {
		return raw, nil
	}
	if err := c.mayAsk(doc.name); err != nil {
		return nil, err
	}
	unlock, err := c.docs.Lock(ctx, doc.key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if raw, ok := c.known(doc); ok {
		return raw, nil
	}
	c.asked.Store(true)
	d, raw, err := fetch()
	if err != nil {
		return nil, err
	}
	return raw, c.keep(doc.kind, d, raw)
}

// known returns a document of the cache if its bytes are still what they were.
func (c *cachedFetcher) known(doc document) ([]byte, bool) {
	raw, err := c.docs.Read(doc.kind, doc.key)
	if err != nil || verify(doc.kind, raw, ocispec.Descriptor{Digest: doc.key, Size: int64(len(raw))}) != nil {
		return nil, false
	}
	return raw, true
}

// keep stores a document that its digest proves; one that it does not prove is
// the caller's to refuse.
func (c *cachedFetcher) keep(kind string, d ocispec.Descriptor, raw []byte) error {
	if verify(kind, raw, d) != nil {
		return nil
	}
	return c.docs.Write(kind, d.Digest, raw)
}

// verify knows that the digest of some manifests is not that of all their bytes.
func verify(kind string, raw []byte, d ocispec.Descriptor) error {
	if kind == "image/manifest" {
		return manifest.VerifyManifest(raw, d)
	}
	return manifest.Verify(raw, d)
}

// BlobSize is manifest.Sizer's. What the registry says is kept by keepSizes,
// once it has proved right.
func (c *cachedFetcher) BlobSize(ctx context.Context, ref reference.Named, d digest.Digest) (int64, error) {
	name := ref.Name() + "@" + d.String()
	from, ok := c.from.(manifest.Sizer)
	if !ok {
		return 0, fmt.Errorf("%s: nobody tells its size: %w", name, errdefs.ErrNotImplemented)
	}
	if c.local {
		return from.BlobSize(ctx, ref, d)
	}
	if raw, err := c.docs.Read("image/sizes", d); err == nil {
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	if err := c.ask(name); err != nil {
		return 0, err
	}
	n, err := from.BlobSize(ctx, ref, d)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sizes == nil {
		c.sizes = map[digest.Digest]int64{}
	}
	c.sizes[d] = n
	return n, nil
}

// keepSizes keeps the sizes of blobs that the registry was asked for, so that
// the next opening needs no registry.
func (c *cachedFetcher) keepSizes() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for d, n := range c.sizes {
		if err := c.docs.Write("image/sizes", d, strconv.AppendInt(nil, n, 10)); err != nil {
			return err
		}
	}
	return nil
}
