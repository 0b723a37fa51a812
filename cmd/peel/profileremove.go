package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/manifest"
)

type profileRemoveOptions struct {
	*app
	entrypoint string
	json       bool
}

func (a *app) profileRemoveCommand() *cobra.Command {
	o := &profileRemoveOptions{app: a}
	var given bool
	cmd := &cobra.Command{
		Use:   "rm [flags] IMAGE",
		Short: "Forget what this machine has learned of an image",
		Long: `Forget the profiles of an image: all of them, or that of --entrypoint. No registry is
asked. One that is attached to the image stays there, and the next mount begins
with it.`,
		Example: `  peel profile rm debian:12
  peel profile rm --entrypoint worker registry.example/team/app:v1`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			given = cmd.Flags().Changed("entrypoint")
			return o.run(cmd.Context(), args[0], func(n fs.ProfileName) bool { return !given || n.Entrypoint == o.entrypoint })
		},
	}
	cmd.Flags().StringVar(&o.entrypoint, "entrypoint", "", "`name` that the mounts were given (default all)")
	cmd.Flags().BoolVar(&o.json, "json", false, "an array of objects for programs")
	return cmd
}

// removedProfile is what rm tells programs.
type removedProfile struct {
	Digest     digest.Digest `json:"digest"` // of the platform's manifest
	Entrypoint string        `json:"entrypoint"`
}

func (o *profileRemoveOptions) run(ctx context.Context, arg string, wanted func(fs.ProfileName) bool) error {
	images, err := o.known(ctx, arg)
	if err != nil {
		return err
	}
	c, err := o.openCache()
	if err != nil {
		return err
	}
	gone := []removedProfile{}
	for _, image := range images {
		names, err := fs.ProfileNames(shelf{c}, image)
		if err != nil {
			return err
		}
		for _, n := range names {
			if !wanted(n) {
				continue
			}
			if err := fs.RemoveProfile(ctx, shelf{c}, n); err != nil {
				return err
			}
			gone = append(gone, removedProfile{n.Image, n.Entrypoint})
		}
	}
	if len(gone) == 0 {
		return fmt.Errorf("%s: %w: no profile of it is here", arg, errdefs.ErrNotFound)
	}
	if o.json {
		return writeJSON(o.out, gone)
	}
	for _, p := range gone {
		f := profileFlags{entrypoint: p.Entrypoint}
		fmt.Fprintf(o.out, "Removed %s of %s\n", f.named(), shortDigest(p.Digest.String()))
	}
	return nil
}

// known are the manifests that arg has meant on this machine, or names.
func (o *profileRemoveOptions) known(ctx context.Context, arg string) ([]digest.Digest, error) {
	ref, err := manifest.ParseReference(arg)
	if err != nil {
		return nil, err
	}
	images, err := o.images()
	if err != nil {
		return nil, err
	}
	all, err := images.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	if d, ok := ref.Digest(); ok {
		out = append(out, d)
	}
	for _, i := range all {
		if i.Name == ref.String() && i.Manifest != "" && !slices.Contains(out, i.Manifest) {
			out = append(out, i.Manifest)
		}
	}
	return out, nil
}
