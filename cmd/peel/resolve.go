package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type resolveOptions struct {
	*app
	platform string
	json     bool
}

const platformHelp = "`os/arch[/variant]` to choose from an index (default: the index itself)"

func (a *app) resolveCommand() *cobra.Command {
	o := &resolveOptions{app: a}
	cmd := &cobra.Command{
		Use:   "resolve [flags] IMAGE",
		Short: "Ask what a name stands for now: its full form, and the descriptor",
		Example: `  peel resolve alpine
  peel resolve --platform linux/arm64 --json ghcr.io/owner/name:tag`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringVar(&o.platform, "platform", "", platformHelp)
	cmd.Flags().BoolVar(&o.json, "json", false, "an object for programs")
	return cmd
}

// resolution is what a name stands for.
type resolution struct {
	Name       string             `json:"name"` // in full
	Descriptor ocispec.Descriptor `json:"descriptor"`
}

func (o *resolveOptions) run(ctx context.Context, arg string) error {
	return o.withDocument(ctx, arg, o.platform, func(d document) error {
		r := resolution{Name: d.ref.String(), Descriptor: d.desc}
		if o.json {
			return writeJSON(o.out, r)
		}
		fmt.Fprintf(o.out, "Name:      %s\n", r.Name)
		fmt.Fprintf(o.out, "Digest:    %s\n", r.Descriptor.Digest)
		fmt.Fprintf(o.out, "Type:      %s\n", oneLine(r.Descriptor.MediaType))
		_, err := fmt.Fprintf(o.out, "Size:      %d\n", r.Descriptor.Size)
		if p := r.Descriptor.Platform; err == nil && p != nil {
			_, err = fmt.Fprintf(o.out, "Platform:  %s\n", oneLine(platforms.FormatAll(*p)))
		}
		return err
	})
}

// document is what a reference names, or that for one platform.
type document struct {
	from source
	ref  manifest.Reference
	desc ocispec.Descriptor
	raw  []byte
}

// withSource opens the place that an image is in for use.
func (a *app) withSource(ctx context.Context, arg string, use func(source, manifest.Reference) error) (err error) {
	ref, err := manifest.ParseReference(arg)
	if err != nil {
		return err
	}
	log, err := a.logger(a.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	from, err := a.source(ctx, ref, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	return use(from, ref)
}

// withDocument fetches what arg names for use, for the platform if one is given.
func (a *app) withDocument(ctx context.Context, arg, platform string, use func(document) error) error {
	var p ocispec.Platform
	if platform != "" {
		var err error
		if p, err = manifest.ParsePlatform(platform); err != nil {
			return err
		}
	}
	return a.withSource(ctx, arg, func(from source, ref manifest.Reference) error {
		d := document{from: from, ref: ref}
		if platform == "" {
			var err error
			if d.desc, d.raw, err = from.Manifest(ctx, ref.Named()); err != nil {
				return err
			}
			return use(d)
		}
		img, err := manifest.Resolve(ctx, from, ref, p)
		if err != nil {
			return err
		}
		d.desc, d.raw = img.Desc, img.Raw
		return use(d)
	})
}

// at names a digest in the repository of ref.
func at(ref manifest.Reference, d digest.Digest) (reference.Named, error) {
	named, err := reference.WithDigest(reference.TrimNamed(ref.Named()), d)
	if err != nil {
		return nil, usagef("digest %q: %w", d, err)
	}
	return named, nil
}
