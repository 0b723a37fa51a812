package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/manifest"
)

type imagesOptions struct {
	*app
	json bool
}

const imagesHelp = `List the images that the cache folder knows: those that were pulled, and those
that were mounted or looked into and may be there in part. No registry is asked.

PRESENT is how much of an image's content is here, and of how much, uncompressed;
what was never looked into counts as nothing; "-" if no layer is here whole, though
what an interrupted pull has fetched is kept for the next. An image of several platforms has a
line for each that was used.

With a place on this machine, like docker-archive:FILE or oci:DIR, the images in
that place are listed instead.`

func (a *app) imagesCommand() *cobra.Command {
	o := &imagesOptions{app: a}
	cmd := &cobra.Command{
		Use:   "images [flags] [PLACE]",
		Short: "List images that are here, and remove them",
		Long:  imagesHelp,
		Example: `  peel images
  peel images docker-archive:images.tar
  peel images rm alpine`,
		Args: takes(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return o.place(cmd.Context(), args[0])
			}
			return o.list(cmd.Context())
		},
	}
	cmd.PersistentFlags().BoolVar(&o.json, "json", false, "an array of objects for programs")
	cmd.AddCommand(&cobra.Command{
		Use:   "rm [flags] IMAGE...",
		Short: "Forget images, and delete what no other image needs",
		Long: `Forget images by name or digest, and delete from the cache folder what no other
name needs.
An image in use is refused: one that a mount shows, unless another name of it
stays; and one that another process reads or fetches, but for what is free of it.
The other images are removed, and the exit code is 1.`,
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.remove(cmd.Context(), args) },
	})
	return cmd
}

// shelf makes of a cache.Cache what fs.Images asks of a cache.
type shelf struct{ *cache.Cache }

func (s shelf) Refs() ([]fs.RefInfo, error) {
	refs, err := s.Cache.Refs()
	var out []fs.RefInfo
	for _, r := range refs {
		out = append(out, fs.RefInfo(r))
	}
	return out, err
}

// images are those of the cache folder.
func (a *app) images() (*fs.Images, error) {
	c, err := a.openCache()
	if err != nil {
		return nil, err
	}
	mounts, err := a.mountsDir()
	if err != nil {
		return nil, err
	}
	return fs.NewImages(shelf{c}, mounts), nil
}

func (o *imagesOptions) list(ctx context.Context) error {
	images, err := o.images()
	if err != nil {
		return err
	}
	all, err := images.List(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(o.out, all)
	}
	t := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tDIGEST\tPLATFORM\tSIZE\tPRESENT\tUSED")
	terminal := isTerminal(o.out)
	for _, i := range all {
		size, present := "-", "-"
		if i.Manifest != "" {
			size = humanSize(i.Size)
		}
		if i.Total > 0 { // else no layer was read to its end: how much it unpacks to is not known
			present = humanSize(i.Present) + " of " + humanSize(i.Total)
		}
		platform := i.Platform
		if platform == "" {
			platform = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s ago\n", shown(i.Name, terminal), shortDigest(i.Digest.String()), platform, size, present, ago(i.Used))
	}
	return t.Flush()
}

// placed is an image in a place on this machine.
type placed struct {
	Names  []string `json:"names"` // what may follow the place and a colon
	Digest string   `json:"digest"`
}

// place lists the images of a place on this machine.
func (o *imagesOptions) place(ctx context.Context, arg string) error {
	ref, err := manifest.ParseReference(arg)
	if err != nil {
		return err
	}
	if ref.Transport() == "" {
		return withRemedy(usagef("%s is no place on this machine", arg), "to list what the cache folder knows: peel images; what a registry has: peel tags %s", arg)
	}
	entries, err := o.listLocal(ctx, ref)
	if err != nil {
		return err
	}
	all := []placed{}
	for _, e := range entries {
		all = append(all, placed{Names: append([]string{}, e.Names...), Digest: e.Desc.Digest.String()})
	}
	if o.json {
		return writeJSON(o.out, all)
	}
	t := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tDIGEST")
	terminal := isTerminal(o.out)
	for _, p := range all {
		if len(p.Names) == 0 {
			p.Names = []string{"-"}
		}
		for _, name := range p.Names {
			fmt.Fprintf(t, "%s\t%s\n", shown(name, terminal), shortDigest(p.Digest))
		}
	}
	return t.Flush()
}

// remove forgets images. One that stays keeps no other here.
func (o *imagesOptions) remove(ctx context.Context, args []string) error {
	images, err := o.images()
	if err != nil {
		return err
	}
	total := fs.Removed{Names: []string{}}
	var errs []error
	for _, arg := range args {
		r, err := images.Remove(ctx, arg)
		total.Freed += r.Freed
		total.Names = append(total.Names, r.Names...)
		if !o.json {
			for _, name := range r.Names {
				fmt.Fprintf(o.out, "Removed %s\n", name)
			}
		}
		if errors.Is(err, fs.ErrInUse) {
			err = withRemedy(err, "unmount it first (peel ps lists mounts, peel umount DIR), then try again")
		}
		errs = append(errs, err)
	}
	if o.json {
		errs = append(errs, writeJSON(o.out, total))
	} else if len(total.Names) > 0 || total.Freed > 0 {
		fmt.Fprintf(o.out, "%s freed\n", humanSize(total.Freed))
	}
	return errors.Join(errs...)
}
