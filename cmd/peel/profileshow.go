package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/fs"
)

type profileShowOptions struct {
	*app
	profileFlags
	all bool
}

func (a *app) profileShowCommand() *cobra.Command {
	o := &profileShowOptions{app: a}
	cmd := &cobra.Command{
		Use:   "show [flags] IMAGE",
		Short: "Show what is read of an image first",
		Long: `Show the profile of an image: what is read first, in the order and with the times of
the runs, how many compressed bytes that takes, and in how many of the runs it was
read, later ones counting more. What is marked with - is not fetched ahead any more.`,
		Example: `  peel profile show debian:12
  peel profile show --entrypoint worker --all registry.example/team/app:v1`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.profileFlags.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.all, "all", false, "name all files of a place, not only the first")
	return cmd
}

// profileReport is what show tells programs.
type profileReport struct {
	Reference  string           `json:"reference"`
	Digest     string           `json:"digest"` // of the platform's manifest
	Entrypoint string           `json:"entrypoint"`
	Runs       int              `json:"runs"`
	OwnRuns    int              `json:"own_runs"` // of this machine
	From       string           `json:"from,omitempty"`
	Updated    time.Time        `json:"updated"`
	Compressed int64            `json:"compressed"` // bytes that are fetched ahead
	Touches    []fs.ProfileStep `json:"touches"`
}

func (o *profileShowOptions) run(ctx context.Context, arg string) error {
	r, err := o.request(arg)
	if err != nil {
		return err
	}
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	return o.browse(ctx, r, func(s *session) error {
		k, err := o.kept(shelf{s.cache}, s.image.Manifest, log)
		if err != nil {
			return err
		}
		report := profileReport{
			Reference: r.ref.String(), Digest: k.Profile.Image.String(), Entrypoint: o.entrypoint,
			Runs: k.Profile.Runs, OwnRuns: k.Own, From: k.From.String(), Updated: k.Profile.Updated,
			Touches: s.image.Steps(k.Profile),
		}
		for _, t := range report.Touches {
			if t.Replay {
				report.Compressed += t.Cost
			}
		}
		if o.json {
			return writeJSON(o.out, report)
		}
		return o.print(o.out, &report)
	})
}

func (o *profileShowOptions) print(w io.Writer, r *profileReport) error {
	fmt.Fprintf(w, "%s (%s): %s, %d of this machine, the last %s ago; %s in %s\n\n", r.Reference, shortDigest(r.Digest),
		counted(r.Runs, "run"), r.OwnRuns, ago(r.Updated), humanSize(r.Compressed), counted(len(r.Touches), "place"))
	terminal := isTerminal(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "AFTER\tLAYER\tSIZE\tWEIGHT\tPATH")
	for _, s := range r.Touches {
		mark := ""
		if !s.Replay {
			mark = " -"
		}
		fmt.Fprintf(t, "%.3f s\t%s\t%s\t%d %%%s\t", float64(s.At)/1000, shortDigest(s.Layer.String()), humanSize(s.Cost), s.Weight/10, mark)
		paths := s.Paths
		if len(paths) == 0 {
			fmt.Fprint(t, "no file's data")
		}
		for i, p := range paths {
			if i > 0 && !o.all {
				fmt.Fprintf(t, ", and %d more", len(paths)-1)
				break
			}
			if i > 0 {
				fmt.Fprint(t, "\n\t\t\t\t")
			}
			fmt.Fprint(t, shown(p, terminal))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
