package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/peelfs/peel/internal/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo [flags]",
		Short: "See what peel does, with an image of this machine's own files",
		Long: `Make an image of this machine's own files, put it on a registry behind a
simulated line of 40 ms and 100 Mbit/s, use it through peel, then pull and
unpack it whole, and compare. Everything is temporary and goes at the end.`,
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), keep) },
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the image mounted until Ctrl-C, and say what to try")
	return cmd
}

func (a *app) demo(ctx context.Context, keep bool) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return demo.Run(ctx, demo.Options{Peel: exe, Out: a.out, Keep: keep, NoFUSE: canMount()})
}
