package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// sociFlags are those of SOCI indexes.
type sociFlags struct {
	spanSize int64
	least    int64
}

// sociLeast is the size in bytes from which on SOCI's tools index a layer.
const sociLeast = 10 << 20

type indexCreateOptions struct {
	*app
	sociFlags
	format   indexFormat
	platform string
	output   string
	json     bool
}

const indexCreateHelp = `Make an index for every layer that has no table of contents.

Each such layer is read whole, once, and proved by the digests of its blob and
of its tar. It then is in the cache with all its data, for mounts of this
machine. What is told is how large the indexes are as they travel; peel index
push shares them.

  --format peel   peel's own indexes. With --output they are written to an OCI
                  image layout, as the artifact that push attaches to images.
  --format soci   SOCI indexes of version 2, which change the image: a manifest
                  with an annotation, and an OCI index that binds both. --output
                  is needed; see also peel index push --format soci.`

func (a *app) indexCreateCommand() *cobra.Command {
	o := &indexCreateOptions{app: a, format: formatPeel}
	cmd := &cobra.Command{
		Use:   "create [flags] IMAGE",
		Short: "Make an index for every layer that lacks one",
		Long:  indexCreateHelp,
		Example: `  peel index create debian
  peel index create --format soci --output oci:debian:soci debian`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.Var(&o.format, "format", "peel or soci")
	f.StringVar(&o.platform, "platform", "", "`os/arch[/variant]` of the image (default linux on this processor; soci: all)")
	f.StringVar(&o.output, "output", "", "`oci:DIR[:TAG]` to write to, an OCI image layout")
	f.BoolVar(&o.json, "json", false, "an object for programs")
	o.sociFlags.add(f)
	return cmd
}

func (o *indexCreateOptions) run(ctx context.Context, arg string) (err error) {
	flags := imageFlags{platform: o.platform}
	r, err := flags.request(arg)
	if err != nil {
		return err
	}
	var to destination
	if o.output != "" {
		if to, err = parseDestination(o.output); err != nil {
			return err
		}
		if to.ref != nil {
			return withRemedy(usagef("--output %s is no folder", o.output), "write it as oci:DIR[:TAG], or use: peel index push --to")
		}
	}
	if o.format == formatSOCI {
		if o.output == "" {
			return withRemedy(usagef("SOCI indexes change the image, which has to go somewhere"), "add --output oci:DIR[:TAG], or use: peel index push --format soci --to IMAGE")
		}
		return o.soci(ctx, sociJob{from: r, to: to, all: o.platform == "", sociFlags: o.sociFlags, json: o.json})
	}
	if err := o.sociFlags.refuse(); err != nil {
		return err
	}
	x, layers, err := o.indexImage(ctx, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.from.Close()) }()
	made := newIndexes(x, layers)
	if o.output != "" && len(made.indexes.Layers) > 0 {
		if err := made.write(ctx, to); err != nil {
			return fmt.Errorf("%s: %w", r.ref, err)
		}
	}
	return made.tell(o.app, o.json)
}
