package fs

import (
	"context"
	"errors"
	"fmt"


	"github.com/peelfs/peel/layer"
)

// plain is a layer that only a streaming pass can index.
type plain struct {
	slot   slot
	reason string
	src    layer.Source
	diffID diffIDFunc
}

// stream reads layer i whole into the store, unless another process has done
// so by the time the layer is ours.
func (op *opening) stream(ctx context.Context, m *Image, i int, p plain) (x *layer.Index, err error) {
	d := m.Manifest.Layers[i]
	stage, err := op.Cache.Stage(ctx, p.slot.key)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	if x, err := op.cachedIndex(m, i, p.slot); err == nil {
		return x, nil
	}
	diffID, err := p.diffID(ctx)
	if err != nil {
		return nil, err
	}
	op.progress[i].set("streaming")
	var watch layer.Watcher
	if op.early != nil {
		stage, watch = op.early.begin(m, i, stage)
	}
	x, err = layer.Stream(ctx, p.src, d, diffID, layer.StreamOptions{
		Reason: p.reason, Stage: stage, Progress: &op.progress[i].done, Watch: watch, Log: op.Log,
	})
	if err != nil {
		return nil, err
	}
	return op.keepIndex(m, i, p.slot, x)
}
