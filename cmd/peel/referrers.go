package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type referrersOptions struct {
	*app
	platform     string
	artifactType string
	json         bool
}

func (a *app) referrersCommand() *cobra.Command {
	o := &referrersOptions{app: a}
	cmd := &cobra.Command{
		Use:   "referrers [flags] IMAGE",
		Short: "List what is attached to an image: signatures, SBOMs, indexes",
		Long: `List the manifests that name the image as their subject, by the registry's
referrers API or, where that is missing, by the referrers tag.`,
		Example: "  peel referrers --artifact-type application/spdx+json ghcr.io/owner/name",
		Args:    takes(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringVar(&o.platform, "platform", "", platformHelp)
	cmd.Flags().StringVar(&o.artifactType, "artifact-type", "", "only those of this `type`")
	cmd.Flags().BoolVar(&o.json, "json", false, "an array of descriptors for programs")
	return cmd
}

func (o *referrersOptions) run(ctx context.Context, arg string) error {
	list := func(from source, ref manifest.Reference, d ocispec.Descriptor) error {
		found, err := from.Referrers(ctx, ref.Named(), d.Digest)
		if err != nil {
			return err
		}
		found = slices.DeleteFunc(slices.Clone(found), func(d ocispec.Descriptor) bool {
			return o.artifactType != "" && d.ArtifactType != o.artifactType
		})
		if o.json {
			return writeJSON(o.out, append([]ocispec.Descriptor{}, found...))
		}
		return printReferrers(o.out, found)
	}
	// A subject need not be there.
	if ref, err := manifest.ParseReference(arg); err == nil && o.platform == "" {
		if d, ok := ref.Digest(); ok {
			return o.withSource(ctx, arg, func(from source, ref manifest.Reference) error {
				return list(from, ref, ocispec.Descriptor{Digest: d})
			})
		}
	}
	return o.withDocument(ctx, arg, o.platform, func(d document) error { return list(d.from, d.ref, d.desc) })
}

func printReferrers(w io.Writer, found []ocispec.Descriptor) error {
	if len(found) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DIGEST\tTYPE\tSIZE")
	for _, d := range found {
		fmt.Fprintf(t, "%s\t%s\t%s\n", d.Digest, cmp.Or(oneLine(d.ArtifactType), oneLine(d.MediaType)), humanSize(d.Size))
	}
	return t.Flush()
}
