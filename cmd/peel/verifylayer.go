package main

import (
	"context"
	"errors"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/layer"
)

// layer proves layer i, unless that is settled.
func (v *verifier) layer(ctx context.Context, i int) (verifiedLayer, error) {
	x := v.image.Layers()[i].Index()
	l := verifiedLayer{
		Digest: x.Blob().String(), Format: x.Info.Format.String(),
		Index: x.Claim().String(), Origin: x.Origin(), Result: resultProved,
	}
	if result, note := v.settled(x); result != "" {
		l.Result, l.Note = result, note
		return l, nil
	}
	err := v.compare(ctx, i, x)
	switch {
	case errors.Is(err, layer.ErrVerify), errors.Is(err, layer.ErrMalformed):
		l.Result, l.Difference = resultDiffers, err.Error()
		return l, nil
	case err != nil:
		return l, err
	}
	return l, v.proved(i, x.AsProved(v.image.Config.RootFS.DiffIDs[i]))
}

// compare reads layer i whole and compares it with what x claims of it.
func (v *verifier) compare(ctx context.Context, i int, x *layer.Index) error {
	d := v.image.Manifest.Layers[i]
	p := fs.Proof{
		Index: x, Layer: d, DiffID: v.image.Config.RootFS.DiffIDs[i],
		Dir: v.dir, Progress: v.progress.start(d), Log: v.log,
	}
	return p.Run(ctx, v.from.Layer(v.image.Manifest.Reference.Named(), d))
}
