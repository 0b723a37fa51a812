package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/layer"
)

type indexVerifyOptions struct {
	*app
	imageFlags
	json bool
}

const indexVerifyHelp = `Prove the indexes that a first mount of an image would use.

They are looked for as on a machine that has never seen the image: attached to
it, or with --index in another repository. Each layer that one is found for is
read whole, and every name, attribute and byte is compared with the index. The
first difference is told, with exit code 5, also if an index is so broken that a
mount would not use it. Nothing is remembered; peel verify does that, for layers
of every format.`

func (a *app) indexVerifyCommand() *cobra.Command {
	o := &indexVerifyOptions{app: a}
	cmd := &cobra.Command{
		Use:   "verify [flags] IMAGE",
		Short: "Prove the indexes that a mount would use",
		Long:  indexVerifyHelp,
		Args:  takes(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.imageFlags.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.json, "json", false, "an object for programs")
	return cmd
}

func (o *indexVerifyOptions) run(ctx context.Context, arg string) (err error) {
	r, err := o.request(arg)
	if err != nil {
		return err
	}
	r.require = 0 // it is what is to be proved
	dir, err := o.cacheDir()
	if err != nil {
		return err
	}
	c, err := cache.Open(dir)
	if err != nil {
		return err
	}
	// What this machine has proved, or remembers, must not stand in for what
	// others would find.
	empty, err := os.MkdirTemp(filepath.Join(c.Dir(), "tmp"), "verify-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(empty)) }()
	fresh := *o.app
	fresh.cache = empty
	return fresh.browse(ctx, r, func(s *session) error {
		layers, err := o.check(ctx, s, filepath.Join(c.Dir(), "tmp"))
		if err != nil {
			return err
		}
		return tellVerified(o.app, layers, o.json)
	})
}

func (o *indexVerifyOptions) check(ctx context.Context, s *session, tmp string) ([]verifiedLayer, error) {
	v, err := newVerifier(o.app, s, tmp)
	if err != nil {
		return nil, err
	}
	v.settled = func(x *layer.Index) (result, note string) {
		switch {
		case fs.Unusable(x.Reason()):
			return resultDiffers, x.Reason()
		case x.Info.Trust == layer.Proved:
			return resultSkipped, "no index: " + x.Reason()
		case hasTOC(x):
			return resultSkipped, "it has a table of contents, which peel verify proves"
		}
		return "", ""
	}
	layers, err := v.run(ctx)
	if err != nil {
		return nil, err
	}
	why := ""
	for _, l := range layers {
		if l.Result != resultSkipped {
			return layers, nil
		}
		why = l.Note
	}
	return nil, withRemedy(fmt.Errorf("%w: no layer is read by an index; %s", errdefs.ErrNotFound, why), "make them: peel index push")
}

// hasTOC reports whether the index was made from a table of contents of the
// layer itself.
func hasTOC(x *layer.Index) bool {
	return x.Info.Format == layer.FormatEstargz || x.Info.Format == layer.FormatZstdChunked
}
