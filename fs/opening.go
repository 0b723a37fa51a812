package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// opening is one Open under way.
type opening struct {
	Options
	docs     *cachedFetcher
	progress []*layerProgress
	streamed atomic.Bool // some layer was asked for by this opening

	mu sync.Mutex // guards the Image's mappings while layers are indexed in parallel
}

// key names a layer's index and store in the cache. A blob that a manifest
// claims a table of contents for is kept under both digests: what one manifest
// claims must never be shown by another that claims something else of the same
// blob, nor take the place of another blob.
func key(d ocispec.Descriptor) digest.Digest {
	if toc, ok := layer.TOCDigest(d); ok {
		return digest.FromString(d.Digest.String() + "\n" + toc.String())
	}
	return d.Digest
}

// open maps a document of the cache and decodes it. The caller closes the
// mapping when the decoded view is no longer used.
func open[T any](c Docs, kind string, key digest.Digest, decode func([]byte) (T, error)) (T, *flat.Mapping, error) {
	var none T
	m, err := c.Map(kind, key)
	if err != nil {
		return none, nil, err
	}
	v, err := decode(m.Bytes())
	if err != nil {
		return none, nil, errors.Join(fmt.Errorf("%s %s: %w", kind, key, err), m.Close())
	}
	return v, m, nil
}

// keep stores an encoded document and opens it as open does.
func keep[T any](c Docs, kind string, key digest.Digest, data []byte, decode func([]byte) (T, error)) (T, *flat.Mapping, error) {
	if err := c.Write(kind, key, data); err != nil {
		var none T
		return none, nil, err
	}
	return open(c, kind, key, decode)
}

// cachedIndex returns the index of layer i from the cache, if it is one of the
// blob and the table of contents that the manifest names.
func (op *opening) cachedIndex(m *Image, i int) (*layer.Index, error) {
	d := m.Manifest.Layers[i]
	x, mapped, err := open(op.Cache, "index", key(d), layer.Decode)
	if err != nil {
		return nil, err
	}
	toc, _ := layer.TOCDigest(d)
	if x.Blob() != d.Digest || x.Claim() != "" && x.Claim() != toc {
		return nil, errors.Join(fmt.Errorf("layer %s: %w: an index of another layer", d.Digest, flat.ErrCorrupt), mapped.Close())
	}
	op.own(m, mapped)
	return x, nil
}

// keepIndex stores the index of layer i and returns it as the cache has it:
// served from the file, it costs no memory of ours.
func (op *opening) keepIndex(m *Image, i int, x *layer.Index) (*layer.Index, error) {
	x, mapped, err := keep(op.Cache, "index", key(m.Manifest.Layers[i]), x.Encode(), layer.Decode)
	if err != nil {
		return nil, err
	}
	op.own(m, mapped)
	return x, nil
}

func (op *opening) own(m *Image, mapped *flat.Mapping) {
	op.mu.Lock()
	defer op.mu.Unlock()
	m.mappings = append(m.mappings, mapped)
}

// index returns the index of layer i: from the cache, from the layer's table
// of contents, or by streaming the layer once diffID is known.
func (op *opening) index(ctx context.Context, m *Image, i int, diffID func(context.Context) (digest.Digest, error)) (*layer.Index, error) {
	d := m.Manifest.Layers[i]
	x, err := op.cachedIndex(m, i)
	if err == nil {
		return x, nil
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		op.Log.WithError(err).WithField("layer", d.Digest).Info("indexing the layer anew")
	}
	op.streamed.Store(true)
	op.progress[i].set("indexing")
	src := op.Registry.Layer(m.Manifest.Reference.Named(), d)
	x, err = layer.ReadIndex(ctx, src, d)
	if errors.Is(err, layer.ErrPlain) {
		return op.stream(ctx, m, i, plain{reason: err.Error(), src: src, diffID: diffID})
	}
	if err != nil {
		return nil, err
	}
	return op.keepIndex(m, i, x)
}

// plain is a layer that only a streaming pass can index.
type plain struct {
	reason string
	src    layer.Source
	diffID func(context.Context) (digest.Digest, error)
}

// stream reads layer i whole into the store, unless another process has done
// so by the time the layer is ours.
func (op *opening) stream(ctx context.Context, m *Image, i int, p plain) (x *layer.Index, err error) {
	d := m.Manifest.Layers[i]
	stage, err := op.Cache.Stage(ctx, key(d))
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	if x, err := op.cachedIndex(m, i); err == nil {
		return x, nil
	}
	diffID, err := p.diffID(ctx)
	if err != nil {
		return nil, err
	}
	op.progress[i].set("streaming")
	x, err = layer.Stream(ctx, p.src, d, diffID, layer.StreamOptions{Reason: p.reason, Stage: stage, Progress: &op.progress[i].done})
	if err != nil {
		return nil, err
	}
	return op.keepIndex(m, i, x)
}

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
