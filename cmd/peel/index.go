package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

const indexHelp = `Indexes let layers without a table of contents be mounted lazily.

An index says where in a layer each file is, and where its compressed stream can
be entered. peel makes one when it reads a layer whole for the first time. Pushed
to a registry, it spares every other machine that.`

func (a *app) indexCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "index",
		Short: "Make indexes of plain layers, and share and check them",
		Long:  indexHelp,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return withRemedy(usagef("unknown command %q", "index "+args[0]), "see: %s --help", cmd.CommandPath())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.indexCreateCommand(), a.indexPushCommand(), a.indexVerifyCommand())
	return cmd
}

// indexFormat is the format of an index on the command line.
type indexFormat string

const (
	formatPeel indexFormat = "peel"
	formatSOCI indexFormat = "soci"
)

func (f *indexFormat) String() string { return string(*f) }
func (f *indexFormat) Type() string   { return "format" }

func (f *indexFormat) Set(s string) error {
	switch indexFormat(s) {
	case formatPeel, formatSOCI:
		*f = indexFormat(s)
		return nil
	}
	return fmt.Errorf("%q is neither %s nor %s", s, formatPeel, formatSOCI)
}

// indexLayers is how many layers are read whole at a time. Each is a pipeline
// that can use a processor and a half.
const indexLayers = 4

// indexing makes the indexes of an image's layers. Each is proved: by a pass
// over the whole blob, of this run or of an earlier one.
type indexing struct {
	from     source
	cache    *cache.Cache
	log      *logrus.Entry
	progress *convertProgress
	image    *manifest.Image
	diffIDs  []digest.Digest // parallel to image.Layers; "" where nobody says it
}

// indexedLayer is what is told of a layer.
type indexedLayer struct {
	Digest     string `json:"digest"`
	Format     string `json:"format,omitempty"`
	Skipped    string `json:"skipped,omitempty"` // why no index was made
	Names      int    `json:"names"`
	Spans      int    `json:"spans"`
	Resident   string `json:"resident,omitempty"`     // why spans cannot be fetched by range
	Index      string `json:"index_digest,omitempty"` // of the index as it travels
	Size       int64  `json:"index_size"`             // bytes
	Compressed int64  `json:"compressed"`             // bytes of the layer
	packed     []byte
}

// indexImage makes the indexes of the image that r names.
func (a *app) indexImage(ctx context.Context, r request) (*indexing, []indexedLayer, error) {
	log, err := a.logger(a.err, logrus.WarnLevel)
	if err != nil {
		return nil, nil, err
	}
	x := &indexing{log: log, progress: newConvertProgress()}
	if x.cache, err = a.openCache(); err != nil {
		return nil, nil, err
	}
	if x.from, err = a.source(ctx, r.ref, log); err != nil {
		return nil, nil, err
	}
	done := a.showConversion(ctx, x.progress)
	layers, err := x.run(ctx, r)
	done()
	if err != nil {
		return nil, nil, errors.Join(err, x.from.Close())
	}
	return x, layers, nil
}

func (x *indexing) run(ctx context.Context, r request) ([]indexedLayer, error) {
	img, err := manifest.Resolve(ctx, x.from, r.ref, r.platform)
	if err != nil {
		return nil, err
	}
	config, err := manifest.LoadConfig(ctx, x.from, img)
	if err != nil {
		return nil, err
	}
	x.image, x.diffIDs = img, config.RootFS.DiffIDs
	if img.DiffIDsUnknown() {
		x.diffIDs = make([]digest.Digest, len(img.Layers))
	}
	layers := make([]indexedLayer, len(img.Layers))
	first := map[digest.Digest]int{} // an image may have a layer twice
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(indexLayers)
	for i, d := range img.Layers {
		if _, twice := first[d.Digest]; twice {
			continue
		}
		first[d.Digest] = i
		g.Go(func() (err error) {
			layers[i], err = x.layer(gctx, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, d := range img.Layers {
		layers[i] = layers[first[d.Digest]]
	}
	return layers, nil
}

// layer makes the index of layer i, unless it has a table of contents.
func (x *indexing) layer(ctx context.Context, i int) (indexedLayer, error) {
	d := x.image.Layers[i]
	l := indexedLayer{Digest: d.Digest.String(), Compressed: d.Size}
	if x.image.FileName(i) != "" {
		l.Skipped = "it is a file, not a tar"
		return l, nil
	}
	if _, ok := layer.TOCDigest(d); ok {
		l.Skipped = "it has a table of contents"
		return l, nil
	}
	if foreign(d) {
		l.Skipped = "no registry may distribute it"
		return l, nil
	}
	index, err := x.index(ctx, i)
	if err != nil {
		return l, err
	}
	l.Format, l.Names, l.Spans, l.Resident = index.Info.Format.String(), len(index.Entries), len(index.Spans), index.Resident()
	l.packed = index.Pack()
	l.Index, l.Size = digest.FromBytes(l.packed).String(), int64(len(l.packed))
	return l, nil
}

// index returns the proved index of layer i: that of the cache, or a new one,
// which then is in the cache together with all data of the layer.
func (x *indexing) index(ctx context.Context, i int) (index *layer.Index, err error) {
	if index := x.known(i); index != nil {
		return index, nil
	}
	d := x.image.Layers[i]
	stage, err := x.cache.Stage(ctx, d.Digest)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	if index := x.known(i); index != nil {
		return index, nil // of another process, meanwhile
	}
	src := x.from.Layer(x.image.Reference.Named(), d)
	// What ReadIndex says of a layer without annotations costs no request.
	_, plain := layer.ReadIndex(ctx, src, d)
	if !errors.Is(plain, layer.ErrPlain) {
		return nil, plain
	}
	index, err = layer.Stream(ctx, src, d, x.diffIDs[i], layer.StreamOptions{
		Reason: plain.Error(), Stage: stage, Progress: x.progress.start(d), Log: x.log,
	})
	if err != nil {
		return nil, err
	}
	return index, x.cache.Write("index", d.Digest, index.Encode())
}

// known returns the proved index of layer i that the cache has, or nil.
func (x *indexing) known(i int) *layer.Index {
	d := x.image.Layers[i].Digest
	data, err := x.cache.Read("index", d)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	var index *layer.Index
	if err == nil {
		index, err = layer.Decode(data)
	}
	if err != nil {
		x.log.WithError(err).WithField("layer", d).Info("indexing the layer anew")
		return nil
	}
	if want := x.diffIDs[i]; index.Info.Trust != layer.Proved || index.Blob() != d || want != "" && index.DiffID() != want {
		return nil
	}
	return index
}

// descriptor is that of the index as it travels.
func (l *indexedLayer) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: manifest.LayerIndexType, Digest: digest.Digest(l.Index), Size: l.Size}
}

// printIndexed writes a table for people.
func printIndexed(w io.Writer, layers []indexedLayer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LAYER\tFORMAT\tNAMES\tSPANS\tINDEX\tSIZE\tOF LAYER")
	for _, l := range layers {
		if l.Skipped != "" {
			fmt.Fprintf(t, "%s\tno index made: %s\n", shortDigest(l.Digest), l.Skipped)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", shortDigest(l.Digest), l.Format, l.Names, l.Spans,
			shortDigest(l.Index), humanSize(l.Size), perCent(l.Size, l.Compressed))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range layers {
		if l.Resident != "" {
			fmt.Fprintf(w, "\n%s cannot be read by range: %s\n", shortDigest(l.Digest), oneLine(l.Resident))
		}
	}
	return nil
}

// perCent is a share for people, to a hundredth.
func perCent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100*float64(part)/float64(whole))
}
