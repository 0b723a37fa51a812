package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/peelfs/peel/fs"
)

type psOptions struct {
	*app
	json bool
}

func (a *app) psCommand() *cobra.Command {
	o := &psOptions{app: a}
	cmd := &cobra.Command{
		Use:   "ps [flags]",
		Short: "Show the mounts of a cache folder",
		Long: `Show the mounts of a cache folder.

FETCHED is what came back from registries; beside it, compressed, what other
layers in the cache had instead (reused), and what was fetched ahead of reads and
nobody has read so far (unused). PRESENT is uncompressed. peel explain DIR tells
more of one mount.`,
		Example: `  peel ps
  peel ps --json | jq '.[].bytes_fetched'`,
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "an array of objects for programs")
	return cmd
}

func (o *psOptions) run(ctx context.Context) error {
	root, err := o.mountsDir()
	if err != nil {
		return err
	}
	mounts, err := fs.List(ctx, root)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(o.out, mounts)
	}
	return o.print(mounts)
}

func (o *psOptions) print(mounts []fs.Status) error {
	terminal := isTerminal(o.out)
	t := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MOUNTPOINT\tIMAGE\tDIGEST\tSERVER\tMOUNTED\tREQUESTS\tFETCHED\tPRESENT")
	for _, m := range mounts {
		server := fmt.Sprint(m.ServerPID)
		if m.State == fs.StateBroken {
			continue // below is all that is known
		}
		if m.State != fs.StateServing {
			server += " (" + m.State + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s ago\t%d\t%s\t%s of %s\n", shown(m.Mountpoint, terminal), m.Reference,
			shortDigest(m.Digest), server, ago(m.Since), m.Requests, fetched(m),
			humanSize(m.BytesPresent), humanSize(m.BytesTotal))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range mounts {
		switch {
		case m.State == fs.StateBroken:
			fmt.Fprintf(o.out, "\n%s\n", oneLine(m.LastError))
		case m.LastError != "":
			fmt.Fprintf(o.out, "\n%s: %s\n", shown(m.Mountpoint, terminal), oneLine(m.LastError))
		}
	}
	return nil
}

// fetched is what came from registries, and what is to be told beside it.
func fetched(m fs.Status) string {
	text := humanSize(m.BytesFetched)
	if m.BytesReused > 0 {
		text += ", " + humanSize(m.BytesReused) + " reused"
	}
	if m.BytesUnused > 0 {
		text += ", " + humanSize(m.BytesUnused) + " unused"
	}
	return text
}
