package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

type treeOptions struct {
	*app
	imageFlags
	levels int
	all    bool
	dirs   bool
	json   bool
}

func (a *app) treeCommand() *cobra.Command {
	o := &treeOptions{app: a}
	cmd := &cobra.Command{
		Use:   "tree [flags] IMAGE[:/PATH]",
		Short: "Draw a directory of an image and what lies below",
		Example: `  peel tree -L 2 alpine
  peel tree -d debian:12:/usr`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.imageFlags.add(cmd.Flags())
	cmd.Flags().IntVarP(&o.levels, "level", "L", 0, "how many `levels` to go down (default all)")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "also names that begin with a dot")
	cmd.Flags().BoolVarP(&o.dirs, "dirs", "d", false, "directories only")
	cmd.Flags().BoolVar(&o.json, "json", false, "nested objects for programs")
	return cmd
}

func (o *treeOptions) run(ctx context.Context, arg string) error {
	t := parseTarget(arg)
	r, err := o.request(t.image)
	if err != nil {
		return err
	}
	if o.levels < 0 {
		return usagef("-L %d: levels are counted from 1", o.levels)
	}
	return o.browse(ctx, r, func(s *session) error {
		v := s.view()
		row, err := v.Resolve(t.path)
		if err != nil {
			return err
		}
		w := bufio.NewWriter(o.out)
		d := &drawer{treeOptions: o, ctx: ctx, w: w, view: v, terminal: isTerminal(o.out)}
		if o.json {
			err = d.nest(place{t.path, row}, 0)
			d.print("\n")
		} else {
			d.print("%s\n", shown(t.path, d.terminal))
			err = d.draw(place{t.path, row}, "", 1)
			d.print("\n%d directories, %d files\n", d.nDirs, d.nFiles)
		}
		if err != nil {
			return err
		}
		return w.Flush()
	})
}

// drawer writes one tree. What it writes to keeps the first error.
type drawer struct {
	*treeOptions
	ctx           context.Context //nolint:containedctx // of the one command that draws
	w             io.Writer
	view          *view
	terminal      bool
	nDirs, nFiles int
}

func (d *drawer) print(format string, args ...any) { fmt.Fprintf(d.w, format, args...) }

func (d *drawer) children(row uint32) []place {
	var out []place
	for _, e := range d.view.Children(row) {
		name := d.view.Name(e)
		if !d.all && !d.json && strings.HasPrefix(name, ".") || d.dirs && !isDir(e.Type) {
			continue
		}
		out = append(out, place{name, e.Inode})
	}
	return out
}

// below reports whether the children of level are wanted; the root is level 0.
func (d *drawer) below(level int) bool { return d.levels == 0 || level < d.levels }

func (d *drawer) draw(p place, indent string, level int) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	names := d.children(p.row)
	for i, c := range names {
		branch, next := "├── ", "│   "
		if i == len(names)-1 {
			branch, next = "└── ", "    "
		}
		n := &d.view.Inodes[c.row]
		line := shown(c.path, d.terminal)
		if n.Mode&typeMask == typeSymlink {
			line += " -> " + shown(d.view.Link(c.row), d.terminal)
		}
		d.print("%s%s%s\n", indent, branch, line)
		if !isDir(n.Mode) {
			d.nFiles++
			continue
		}
		d.nDirs++
		if d.below(level) {
			if err := d.draw(c, indent+next, level+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// nest writes an entry with its children within it.
func (d *drawer) nest(p place, level int) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	data, err := json.Marshal(d.view.entry(p.path, p.row))
	if err != nil {
		return err
	}
	if !isDir(d.view.Inodes[p.row].Mode) || !d.below(level) {
		_, err := d.w.Write(data)
		return err
	}
	d.print(`%s,"children":[`, data[:len(data)-1])
	for i, c := range d.children(p.row) {
		if i > 0 {
			d.print(",")
		}
		if err := d.nest(place{p.join(c.path), c.row}, level+1); err != nil {
			return err
		}
	}
	d.print("]}")
	return nil
}
