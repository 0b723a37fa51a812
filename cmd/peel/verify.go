package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/layer"
)

// verifyLayers is how many layers are read at a time: each needs room for its
// blob and its tar in the cache folder.
const verifyLayers = 2

type verifyOptions struct {
	*app
	imageFlags
	json bool
}

const verifyHelp = `Prove that an image is what it is shown as.

A layer that is read lazily is shown as its table of contents, or its index,
says: a claim of whoever made it. This command reads each such layer whole,
checks the digests of its blob and of its tar, and compares every name,
attribute and byte with the claim. The first difference is told, with exit code
5; otherwise the layer counts as proved from now on, which peel inspect shows and
peel mount --require proved accepts.

Layers that were read whole on their first mount are proved already. The blobs
and tars of two layers need room in the cache folder meanwhile.`

func (a *app) verifyCommand() *cobra.Command {
	o := &verifyOptions{app: a}
	cmd := &cobra.Command{
		Use:   "verify [flags] IMAGE",
		Short: "Prove that an image is what it is shown as, and remember it",
		Long:  verifyHelp,
		Args:  takes(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.imageFlags.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.json, "json", false, "an object for programs")
	return cmd
}

// verifiedLayer is what is told of a layer.
type verifiedLayer struct {
	Digest     string `json:"digest"`
	Format     string `json:"format"`
	Index      string `json:"index_digest,omitempty"` // of the table of contents or index
	Origin     string `json:"origin,omitempty"`       // what that is
	Result     string `json:"result"`                 // "proved", "differs", or "skipped"
	Difference string `json:"difference,omitempty"`   // the first one
	Note       string `json:"note,omitempty"`         // why there was nothing to do
}

const (
	resultProved  = "proved"
	resultDiffers = "differs"
	resultSkipped = "skipped"
)

func (o *verifyOptions) run(ctx context.Context, arg string) error {
	r, err := o.request(arg)
	if err != nil {
		return err
	}
	r.require = 0 // it is what is to be proved
	return o.browse(ctx, r, func(s *session) error {
		v, err := newVerifier(o.app, s, filepath.Join(s.cache.Dir(), "tmp"))
		if err != nil {
			return err
		}
		v.settled = func(x *layer.Index) (result, note string) {
			switch {
			case x.Info.Trust != layer.Proved:
				return "", ""
			case x.Claim() == "":
				return resultProved, "read whole when it was indexed"
			}
			return resultProved, x.Origin() + ", before"
		}
		v.proved = func(i int, x *layer.Index) error { return s.cache.Write("index", s.image.Key(i), x.Encode()) }
		layers, err := v.run(ctx)
		if err != nil {
			return err
		}
		return tellVerified(o.app, layers, o.json)
	})
}

// tellVerified says what has come out. Its error tells of differences.
func tellVerified(a *app, layers []verifiedLayer, json bool) error { //nolint:revive // for whom, as everywhere
	var err error
	if json {
		err = writeJSON(a.out, layers)
	} else {
		err = printVerified(a.out, layers)
	}
	return errors.Join(err, verdict(layers))
}

// verdict is an error if a layer differs from what is claimed of it.
func verdict(layers []verifiedLayer) error {
	wrong := 0
	for _, l := range layers {
		if l.Result == resultDiffers {
			wrong++
		}
	}
	if wrong == 0 {
		return nil
	}
	return withRemedy(fmt.Errorf("%w: %d of %d layers differ from what is claimed of them", layer.ErrVerify, wrong, len(layers)),
		"do not trust whoever made the index; peel mount --require proved reads layers whole instead")
}

// printVerified writes a table for people.
func printVerified(w io.Writer, layers []verifiedLayer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LAYER\tFORMAT\tRESULT\tCLAIM")
	for _, l := range layers {
		claim := l.Origin
		if l.Note != "" {
			claim = l.Note
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", shortDigest(l.Digest), l.Format, l.Result, oneLine(claim))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range layers {
		if l.Difference != "" {
			fmt.Fprintf(w, "\n%s: %s\n", shortDigest(l.Digest), oneLine(l.Difference))
		}
	}
	return nil
}

// verifier proves the layers of an opened image.
type verifier struct {
	*session
	app      *app
	dir      string // for temporary files
	log      *logrus.Entry
	progress *convertProgress
	// settled returns a result without reading the layer, or "".
	settled func(*layer.Index) (result, note string)
	// proved keeps the index of layer i, which has been proved.
	proved func(i int, x *layer.Index) error
}

func newVerifier(a *app, s *session, dir string) (*verifier, error) {
	log, err := a.logger(a.err, logrus.WarnLevel)
	if err != nil {
		return nil, err
	}
	return &verifier{
		session: s, app: a, dir: dir, log: log, progress: newConvertProgress(),
		proved: func(int, *layer.Index) error { return nil },
	}, nil
}

// run proves all layers. Its error is not that of a layer that differs, but of
// one that cannot be read.
func (v *verifier) run(ctx context.Context) ([]verifiedLayer, error) {
	defer v.app.showConversion(ctx, v.progress)()
	layers := make([]verifiedLayer, len(v.image.Layers()))
	first := map[digest.Digest]int{} // an image may have a layer twice
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(verifyLayers)
	for i := range layers {
		key := v.image.Key(i)
		if _, twice := first[key]; twice {
			continue
		}
		first[key] = i
		g.Go(func() (err error) {
			layers[i], err = v.layer(gctx, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range layers {
		layers[i] = layers[first[v.image.Key(i)]]
	}
	return layers, nil
}
