package main

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type tagsOptions struct {
	*app
	json bool
}

func (a *app) tagsCommand() *cobra.Command {
	o := &tagsOptions{app: a}
	cmd := &cobra.Command{
		Use:     "tags [flags] REPOSITORY",
		Short:   "List the tags of a repository, one per line",
		Example: "  peel tags ghcr.io/owner/name | sort -V | tail",
		Args:    takes(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "an array of strings for programs")
	return cmd
}

func (o *tagsOptions) run(ctx context.Context, arg string) error {
	if ref, err := manifest.ParseReference(arg); err == nil && ref.Transport() != "" {
		return withRemedy(usagef("%s is no repository of a registry; only these have tags to list", arg), "list the images in it with: peel images %s", arg)
	}
	repo, err := parseRepository(arg)
	if err != nil {
		return err
	}
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	client, err := o.client(log)
	if err != nil {
		return err
	}
	defer client.Close()
	tags, err := client.Tags(ctx, repo)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(o.out, append([]string{}, tags...))
	}
	for _, tag := range tags {
		if _, err := fmt.Fprintln(o.out, oneLine(tag)); err != nil {
			return err
		}
	}
	return nil
}
