package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
)

// pullsAtOnce is how many images are pulled at a time; their equal layers are
// transferred once.
const pullsAtOnce = 3

type pullOptions struct {
	*app
	imageFlags
	allTags     bool
	quiet       bool
	json        bool
	destination string // of an OCI layout; "" for none
}

const pullHelp = `Pull images whole into the cache, so that mounting them needs no network.

A layer that several images have is transferred once, even if other peel
processes pull or mount them at the same time, and what is in the cache already
is not transferred at all. Transfers that fail are tried again. Ctrl-C stops; the
next pull goes on from there.

An image of this machine, docker-archive:FILE or oci:DIR for example, is copied
into the cache and known by the names that it has there afterwards; without a
name or tag, all images of the place are.

The cache keeps what layers unpack to, for mount, ls, cat, stat, tree and
inspect; save, layers and config ask the registry. --destination DIR keeps the
original bytes as well, in an OCI layout: oci:DIR:TAG, or oci:DIR:NAME:TAG if it
has an image of that tag already or several are pulled.

The last line says whether anything was new. With --json each change is an
object on a line of its own.`

func (a *app) pullCommand() *cobra.Command {
	o := &pullOptions{app: a}
	cmd := &cobra.Command{
		Use:   "pull [flags] IMAGE...",
		Short: "Pull images whole, for later without a network",
		Long:  pullHelp,
		Example: `  peel pull alpine debian:12
  peel pull --all-tags ghcr.io/owner/name
  peel pull docker-archive:images.tar`,
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.platform, "platform", "", "`os/arch[/variant]` of the images (default linux on this processor)")
	f.BoolVarP(&o.allTags, "all-tags", "a", false, "all tags of each repository")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "say nothing but the names of the images")
	f.BoolVar(&o.json, "json", false, "an object per line for programs")
	f.StringVar(&o.destination, "destination", "", "`folder` to save the images to as well, as an OCI layout with their own bytes")
	return cmd
}

// wanted is an image that is to be pulled.
type wanted struct {
	request
	local []local.Entry // what is in its place, if that is on this machine
}

func (o *pullOptions) run(ctx context.Context, args []string) (err error) {
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	b := &pullBatch{pullOptions: o, log: log}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, arg := range args {
		if err := b.want(ctx, arg); err != nil {
			return err
		}
	}
	if b.destination != "" {
		if err := b.save(ctx); err != nil {
			return err
		}
	}
	return b.pull(ctx)
}

// pullBatch are the images of one run.
type pullBatch struct {
	*pullOptions
	log      *logrus.Entry
	registry source     // nil until an image of a registry is wanted
	puller   *fs.Puller // of registry; nil until it is used
	images   []wanted

	local sync.Mutex // held while an image of this machine is pulled: it may be unpacked for that
}

func (b *pullBatch) close() error {
	if b.puller != nil {
		b.puller.Close()
	}
	if b.registry != nil {
		return b.registry.Close()
	}
	return nil
}

// want adds what an argument means.
func (b *pullBatch) want(ctx context.Context, arg string) error {
	r, err := b.request(arg)
	if err != nil {
		return err
	}
	if r.ref.Transport() != "" {
		return b.wantLocal(ctx, r)
	}
	if b.registry == nil {
		if b.registry, err = b.source(ctx, r.ref, b.log); err != nil {
			return err
		}
	}
	if !b.allTags {
		b.images = append(b.images, wanted{request: r})
		return nil
	}
	return b.wantTags(ctx, arg, r)
}

// newPuller returns a puller of images from a source.
func (b *pullBatch) newPuller(from source, r request) (*fs.Puller, error) {
	c, err := b.openCache()
	if err != nil {
		return nil, err
	}
	return fs.NewPuller(fs.Options{
		Registry: from, Cache: kept{c}, Platform: r.platform, IndexRepo: r.index, Schema: int(b.schema), Log: b.log,
	}), nil
}

// wantTags adds all tags of a repository.
func (b *pullBatch) wantTags(ctx context.Context, arg string, r request) error {
	repo, err := reference.ParseNormalizedNamed(arg)
	if err != nil || !reference.IsNameOnly(repo) {
		return withRemedy(usagef("--all-tags %s: it has a tag or digest", arg), "name the repository alone: %s", r.ref.Named().Name())
	}
	from, ok := b.registry.(registries)
	if !ok {
		return usagef("--all-tags %s: it is no repository", arg)
	}
	tags, err := from.Tags(ctx, repo)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if r.ref, err = manifest.ParseReference(repo.Name() + ":" + tag); err != nil {
			return err
		}
		b.images = append(b.images, wanted{request: r})
	}
	return nil
}

// pull pulls all images. One that fails keeps no other from being pulled.
func (b *pullBatch) pull(ctx context.Context) error {
	if b.registry != nil && len(b.images) > 0 {
		var err error
		if b.puller, err = b.newPuller(b.registry, b.images[0].request); err != nil {
			return err
		}
	}
	show := b.show(ctx)
	errs := make([]error, len(b.images))
	var g errgroup.Group
	g.SetLimit(pullsAtOnce)
	for i, w := range b.images {
		g.Go(func() error {
			errs[i] = b.one(ctx, w, show)
			return nil
		})
	}
	_ = g.Wait() // each has its own outcome
	show.close()
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, err := range errs {
		name := b.images[i].ref.String()
		if err != nil && len(errs) > 1 && !strings.HasPrefix(err.Error(), name+": ") {
			errs[i] = fmt.Errorf("%s: %w", name, err)
		}
	}
	return errors.Join(errs...)
}

// one pulls an image, and shows how that gets on.
func (b *pullBatch) one(ctx context.Context, w wanted, show pullShow) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	name := w.ref.String()
	progress := &fs.Progress{}
	show.image(name, pullOutcome{})
	stop := poll(progress.Layers, func(l []fs.LayerProgress) { show.layers(name, l) })
	p, known, err := b.fetch(ctx, w, progress)
	stop()
	show.layers(name, progress.Layers())
	if err != nil {
		err = blame(err, w.ref)
		show.image(name, pullOutcome{ended: true, failure: explain(ctx, err)})
		return err
	}
	show.image(name, pullOutcome{ended: true, pulled: p, names: known})
	return nil
}

// fetch pulls an image, and returns the names that one of this machine has now.
func (b *pullBatch) fetch(ctx context.Context, w wanted, progress *fs.Progress) (p *fs.Pulled, names []string, err error) {
	if w.ref.Transport() == "" {
		p, err = b.puller.Pull(ctx, w.ref.String(), progress)
		return p, nil, err
	}
	b.local.Lock()
	defer b.local.Unlock()
	from, err := b.source(ctx, w.ref, b.log)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	puller, err := b.newPuller(from, w.request)
	if err != nil {
		return nil, nil, err
	}
	defer puller.Close()
	if p, err = puller.Pull(ctx, w.ref.String(), progress); err != nil {
		return nil, nil, err
	}
	names = ownNames(w.ref, w.local, p.Digest)
	return p, names, b.put(names, p)
}

// put makes an image of this machine known by its names.
func (b *pullBatch) put(names []string, p *fs.Pulled) error {
	c, err := b.openCache()
	if err != nil {
		return err
	}
	for _, name := range names {
		was, _, err := c.Ref(name)
		p.New = p.New || err != nil || was != p.Digest
		if err := c.SetRef(name, p.Digest); err != nil {
			return err
		}
	}
	return nil
}
