package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/internal/sentinel"
	"github.com/peelfs/peel/layer"
)

// ErrNotProved: Options.Require asks for more than somebody's claim.
var ErrNotProved = sentinel.New("not proved", errdefs.ErrFailedPrecondition)

// opening is one Open under way.
type opening struct {
	Options
	docs     *cachedFetcher
	search   *search
	progress []*layerProgress
	streamed atomic.Bool // some layer was asked for by this opening

	unpacking sync.Mutex // held while somebody's index is made one of ours

	mu sync.Mutex // guards the Image's mappings and closers while layers are indexed in parallel
}

// slot names a layer's index and data in the cache. A blob that somebody claims
// something of is kept under both digests: what one image names must never be
// shown by another that names something else for the same blob, nor take the
// place of what was proved.
type slot struct {
	key   digest.Digest
	claim digest.Digest // of the table of contents or index; "" for what was streamed
}

// slotOf is that of the table of contents that the layer's descriptor names,
// or else that of the blob alone.
func slotOf(d ocispec.Descriptor) slot {
	if toc, ok := layer.TOCDigest(d); ok {
		return slot{key: digest.FromString(d.Digest.String() + "\n" + toc.String()), claim: toc}
	}
	return slot{key: d.Digest}
}

// diffIDFunc waits until the digest of a layer's tar is known.
type diffIDFunc func(context.Context) (digest.Digest, error)

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

// cachedIndex returns the index of layer i that slot s of the cache has, if it
// is one of the blob and the claim.
func (op *opening) cachedIndex(m *Image, i int, s slot) (*layer.Index, error) {
	d := m.Manifest.Layers[i]
	x, mapped, err := open(op.Cache, "index", s.key, layer.Decode)
	if err != nil {
		return nil, err
	}
	if x.Blob() != d.Digest || x.Claim() != "" && x.Claim() != s.claim {
		return nil, errors.Join(fmt.Errorf("layer %s: %w: an index of another layer", d.Digest, flat.ErrCorrupt), mapped.Close())
	}
	if !op.accepts(x) {
		err := fmt.Errorf("layer %s: %w: it is only claimed by %s %s", d.Digest, ErrNotProved, x.Origin(), x.Claim())
		return nil, errors.Join(err, mapped.Close())
	}
	op.own(m, i, s, mapped)
	return x, nil
}

// accepts reports whether the index may be used.
func (op *opening) accepts(x *layer.Index) bool { return x.Info.Trust >= op.Require }

// keepIndex stores the index of layer i in slot s and returns it as the cache
// has it: served from the file, it costs no memory of ours.
func (op *opening) keepIndex(m *Image, i int, s slot, x *layer.Index) (*layer.Index, error) {
	x, mapped, err := keep(op.Cache, "index", s.key, x.Encode(), layer.Decode)
	if err != nil {
		return nil, err
	}
	op.own(m, i, s, mapped)
	return x, nil
}

// own notes that layer i is in slot s, and its index a view of mapped.
func (op *opening) own(m *Image, i int, s slot, mapped *flat.Mapping) {
	op.mu.Lock()
	defer op.mu.Unlock()
	m.keys[i] = s.key
	m.mappings = append(m.mappings, mapped)
}

// index returns the index of layer i: from the cache, from the layer's table
// of contents, from somebody who has indexed the layer, or by streaming it once
// diffID is known.
func (op *opening) index(ctx context.Context, m *Image, i int, diffID diffIDFunc) (*layer.Index, error) {
	d := m.Manifest.Layers[i]
	s := slotOf(d)
	x, err := op.cachedIndex(m, i, s)
	if err == nil || errors.Is(err, ErrNotProved) {
		return x, err
	}
	op.anew(d, err)
	src := op.Registry.Layer(m.Manifest.Reference.Named(), d)
	if s.claim != "" {
		op.ask(i)
	}
	x, err = layer.ReadIndex(ctx, src, d) // without a request if there is no table
	switch {
	case err == nil && op.accepts(x):
		return op.keepIndex(m, i, s, x)
	case err == nil:
		return nil, fmt.Errorf("layer %s: %w: it is only claimed by %s %s", d.Digest, ErrNotProved, x.Origin(), x.Claim())
	case !errors.Is(err, layer.ErrPlain):
		return nil, err
	}
	reason := err.Error()
	if s.claim == "" {
		found, why, err := op.search.index(ctx, i)
		if found != nil || err != nil {
			return found, err
		}
		if why != "" {
			reason = why + "; " + reason
		}
	}
	op.ask(i)
	return op.stream(ctx, m, i, plain{slot: s, reason: reason, src: src, diffID: diffID})
}

// ask notes that layer i is asked for.
func (op *opening) ask(i int) {
	op.streamed.Store(true)
	op.progress[i].set("indexing")
}

// anew tells that what the cache has of a layer is of no use.
func (op *opening) anew(d ocispec.Descriptor, err error) {
	if !errors.Is(err, iofs.ErrNotExist) {
		op.Log.WithError(err).WithField("layer", d.Digest).Info("indexing the layer anew")
	}
}
