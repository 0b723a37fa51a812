package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

type catOptions struct {
	*app
	imageFlags
}

func (a *app) catCommand() *cobra.Command {
	o := &catOptions{app: a}
	cmd := &cobra.Command{
		Use:   "cat [flags] IMAGE:/PATH...",
		Short: "Write files of images to standard output",
		Example: `  peel cat alpine:/etc/os-release
  peel cat debian:12:/etc/passwd debian:12:/etc/group`,
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	o.imageFlags.add(cmd.Flags())
	return cmd
}

func (o *catOptions) run(ctx context.Context, args []string) error {
	return o.eachImage(ctx, &o.imageFlags, args, func(s *session, t target) error {
		v := s.view()
		row, err := v.Resolve(t.path)
		if err != nil {
			return err
		}
		if n := &v.Inodes[row]; n.Mode&typeMask != typeFile {
			return fmt.Errorf("%s: is a %s, not a file", t.path, typeName(n.Mode))
		}
		return copyFile(ctx, o.out, s, row)
	})
}

// copyBuffer is how much of a file is asked for at once, bytes: enough that
// neighbouring spans come in one request.
const copyBuffer = 4 << 20

func copyFile(ctx context.Context, w io.Writer, s *session, row uint32) error {
	buf := make([]byte, min(copyBuffer, s.image.Tree.Inodes[row].Size))
	for off := int64(0); ; {
		n, err := s.image.Tree.ReadFile(ctx, s.image, row, buf, off)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return errors.Join(werr, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.image.Tree.Path(row), err)
		}
		if n == 0 {
			return nil
		}
		off += int64(n)
	}
}
