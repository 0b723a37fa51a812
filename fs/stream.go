package fs

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/layer"
)

// plain is a layer that only a streaming pass can index.
type plain struct {
	slot     slot
	reason   string
	src      layer.Source
	diffID   diffIDFunc // of a layer whose diffID nobody knows: yields ""
	file     string     // the path of the file that the blob is; "" for a tar
	unstaged bool       // nothing of the layer is kept beside its index
}

// stream reads layer i whole into the store, unless another opening has done so
// by the time the layer is ours.
func (op *opening) stream(ctx context.Context, m *Image, i int, p plain) (*layer.Index, error) {
	diffID, err := p.diffID(ctx)
	if err != nil {
		return nil, err
	}
	pass := func(ctx context.Context, t *meter) error { return op.pass(ctx, m, i, p, diffID, t) }
	l := op.progress[i]
	if op.share == nil {
		err = pass(ctx, l.meter.Load())
	} else {
		err = op.share.join(ctx, transferKey{slot: p.slot.key, diffID: diffID}, l, pass)
	}
	if err != nil {
		return nil, err
	}
	if op.share != nil {
		l.complete()
	}
	return op.cachedIndex(m, i, p.slot)
}

// pass is one pass over layer i, which leaves its index in the cache. It uses
// nothing of m that is not there before layers are opened, and may go on when
// the opening has ended.
func (op *opening) pass(ctx context.Context, m *Image, i int, p plain, diffID digest.Digest, t *meter) (err error) {
	d := m.Manifest.Layers[i]
	o := layer.StreamOptions{Reason: p.reason, File: p.file, Progress: &t.done, Log: op.Log}
	if !p.unstaged {
		stage, err := op.Cache.Stage(ctx, p.slot.key)
		if err != nil {
			return fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		defer func() { err = errors.Join(err, stage.Close()) }()
		if op.hasIndex(d, p.slot) {
			return nil
		}
		o.Stage = stage
		if op.early != nil {
			o.Stage, o.Watch = op.early.begin(m, i, stage)
		}
	}
	t.set("streaming")
	x, err := layer.Stream(ctx, t.count(p.src), d, diffID, o)
	if err != nil {
		return err
	}
	return op.Cache.Write("index", p.slot.key, x.Encode())
}

// hasIndex reports whether cachedIndex would find the layer's index.
func (op *opening) hasIndex(d ocispec.Descriptor, s slot) bool {
	x, mapped, err := open(op.Cache, "index", s.key, layer.Decode)
	if err != nil {
		return false
	}
	ok := x.Blob() == d.Digest && (x.Claim() == "" || x.Claim() == s.claim) && op.accepts(x)
	return mapped.Close() == nil && ok
}
