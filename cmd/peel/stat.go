package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

type statOptions struct {
	*app
	imageFlags
	follow bool
	json   bool
}

func (a *app) statCommand() *cobra.Command {
	o := &statOptions{app: a}
	cmd := &cobra.Command{
		Use:     "stat [flags] IMAGE:/PATH...",
		Short:   "Show everything an image says of a path",
		Example: `  peel stat alpine:/bin/sh`,
		Args:    takes(cobra.MinimumNArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	o.imageFlags.add(cmd.Flags())
	cmd.Flags().BoolVarP(&o.follow, "dereference", "L", false, "what symlinks lead to, not the symlinks")
	cmd.Flags().BoolVar(&o.json, "json", false, "an array of objects for programs")
	return cmd
}

func (o *statOptions) run(ctx context.Context, args []string) error {
	out := &array{w: o.out}
	err := o.eachImage(ctx, &o.imageFlags, args, func(s *session, t target) error {
		v := s.view()
		find := v.ResolveNoFollow
		if o.follow {
			find = v.Resolve
		}
		row, err := find(t.path)
		if err != nil {
			return err
		}
		if o.json {
			return out.add(v.entry(t.path, row))
		}
		return o.print(v, place{t.path, row})
	})
	if err != nil || !o.json {
		return err
	}
	return out.end()
}

// print writes an entry for people.
func (o *statOptions) print(v *view, p place) error {
	terminal := isTerminal(o.out)
	e, n := v.entry(p.path, p.row), &v.Inodes[p.row]
	name := shown(e.Path, terminal)
	if e.Target != nil {
		name += " -> " + shown(*e.Target, terminal)
	}
	fmt.Fprintf(o.out, "  File: %s\n", name)
	fmt.Fprintf(o.out, "  Type: %s  Size: %d  Inode: %d  Links: %d\n", e.Type, e.Size, e.Inode, e.Links)
	fmt.Fprintf(o.out, "  Mode: %s/%s  Owner: %d:%d", e.Mode, modeString(n.Mode), e.UID, e.GID)
	if e.Device != "" {
		fmt.Fprintf(o.out, "  Device: %s", e.Device)
	}
	fmt.Fprintf(o.out, "\nModify: %s\n", mtime(n).Format("2006-01-02 15:04:05.000000000 -0700"))
	_, err := fmt.Fprintf(o.out, " Layer: %s (%d of %d)\n", e.Layer, slices.Index(v.layers, e.Layer)+1, len(v.layers))
	for _, x := range v.XattrsOf(p.row) {
		value := v.Pool.String(x.Value)
		_, err = fmt.Fprintf(o.out, " Xattr: %s = %q\n", shown(v.Pool.String(x.Name), terminal), value)
	}
	return err
}
