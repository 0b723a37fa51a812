package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/fs"
)

type explainOptions struct {
	*app
	imageFlags
	entrypoint string
	json       bool
}

const explainHelp = `Tell how an image is read and what would make it better, or where a mount's time
went.

For an image: layer by layer, whether it is read lazily, why not, and what would
change that; what is fetched before it is read. The image is opened as by peel
mount: layers that can only be read whole are read.

For the directory of a mount: how many reads came, where their bytes came from
and how long they waited; the slowest; what was fetched, on whose account, and
how much of it nobody has read; what is known of the links to the registries.
Reads that the kernel answers from its page cache reach no server and are not
counted. What lies on this machine counts as the network there. peel mount --trace
FILE tells of each read.

What begins with / or . and what is mounted is a directory, all else an image.`

func (a *app) explainCommand() *cobra.Command {
	o := &explainOptions{app: a}
	cmd := &cobra.Command{
		Use:   "explain [flags] IMAGE|DIR",
		Short: "Tell what makes an image lazy or not, or where a mount's time went",
		Long:  explainHelp,
		Example: `  peel explain debian:12
  peel explain /mnt`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.imageFlags.add(cmd.Flags())
	cmd.Flags().StringVar(&o.entrypoint, "entrypoint", "", "`name` of what would run, as for peel mount")
	cmd.Flags().BoolVar(&o.json, "json", false, "an object for programs")
	return cmd
}

func (o *explainOptions) run(ctx context.Context, arg string) error {
	root, err := o.mountsDir()
	if err != nil {
		return err
	}
	mounts, err := fs.List(ctx, root)
	if err != nil {
		return err
	}
	m, err := findMount(mounts, arg)
	switch {
	case err == nil:
		return o.explainMount(ctx, root, m)
	case isPath(arg):
		err := &classed{fmt.Errorf("explain %s: not a mount of this cache folder", arg), errdefs.ErrNotFound}
		return withRemedy(err, "peel ps lists them; --cache or %s chooses the folder", cacheEnv)
	}
	return o.explainImage(ctx, arg)
}

// isPath reports whether arg cannot be meant for an image.
func isPath(arg string) bool {
	return filepath.IsAbs(arg) || arg == "." || arg == ".." || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../")
}
