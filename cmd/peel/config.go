package main

import (
	"context"
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type configOptions struct {
	*app
	platform string
	raw      bool
}

func (a *app) configCommand() *cobra.Command {
	o := &configOptions{app: a}
	cmd := &cobra.Command{
		Use:   "config [flags] IMAGE",
		Short: "Show the configuration of an image: entry point, environment, history",
		Long: `Show the configuration of an image, indented for people.

With --raw the bytes are those that the image ID is the digest of. An image with a
manifest of Docker schema 1 has no such document: what is shown is made of its
history, and lacks what only its layers tell. The registry is asked, also after a
pull; peel inspect does without.`,
		Example: "  peel config --raw alpine | sha256sum",
		Args:    takes(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringVar(&o.platform, "platform", "", "`os/arch[/variant]` of the image (default linux on this processor)")
	cmd.Flags().BoolVar(&o.raw, "raw", false, "the bytes as they are")
	return cmd
}

func (o *configOptions) run(ctx context.Context, arg string) error {
	p := ocispec.Platform{}
	if o.platform != "" {
		var err error
		if p, err = manifest.ParsePlatform(o.platform); err != nil {
			return err
		}
	}
	return o.withSource(ctx, arg, func(from source, ref manifest.Reference) error {
		img, err := manifest.Resolve(ctx, from, ref, p)
		if err != nil {
			return err
		}
		if img.Artifact {
			// Whatever it is: artifacts have configurations of any type.
			raw, err := from.Blob(ctx, ref.Named(), img.Manifest.Config)
			if err != nil {
				return err
			}
			return o.writeDocument(raw, o.raw || !json.Valid(raw))
		}
		config, err := manifest.LoadConfig(ctx, from, img)
		switch {
		case err != nil:
			return err
		case !img.Schema1:
			return o.writeDocument(config.Raw, o.raw)
		case o.raw:
			return withRemedy(usagef("%s: a manifest of Docker schema 1 has no configuration of its own", ref), "leave out --raw, or see: peel manifest --raw %s", ref)
		}
		return writeJSON(o.out, config.Image)
	})
}
