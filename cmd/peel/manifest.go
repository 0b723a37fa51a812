package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

type manifestOptions struct {
	*app
	platform string
	raw      bool
}

func (a *app) manifestCommand() *cobra.Command {
	o := &manifestOptions{app: a}
	cmd := &cobra.Command{
		Use:   "manifest [flags] IMAGE",
		Short: "Show the manifest or index that a name stands for",
		Long: `Show the manifest or index that a name stands for, indented for people.

With --raw the bytes are those that the digest is of.`,
		Example: "  peel manifest --platform linux/amd64 alpine",
		Args:    takes(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringVar(&o.platform, "platform", "", platformHelp)
	cmd.Flags().BoolVar(&o.raw, "raw", false, "the bytes as they are")
	return cmd
}

func (o *manifestOptions) run(ctx context.Context, arg string) error {
	return o.withDocument(ctx, arg, o.platform, func(d document) error {
		return o.writeDocument(d.raw, o.raw)
	})
}

// writeDocument writes JSON from outside as it is, or indented.
func (a *app) writeDocument(doc []byte, raw bool) error { //nolint:revive // the flag's own meaning
	if raw {
		_, err := a.out.Write(doc)
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(doc), "", "  "); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	pretty.WriteByte('\n')
	_, err := io.Copy(a.out, &pretty)
	return err
}
