package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

type lsOptions struct {
	*app
	imageFlags
	long      bool
	recursive bool
	all       bool
	json      bool
}

func (a *app) lsCommand() *cobra.Command {
	o := &lsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "ls [flags] IMAGE[:/PATH]",
		Short: "List a directory of an image",
		Example: `  peel ls alpine
  peel ls -l ghcr.io/owner/name:tag:/etc
  peel ls -R --json alpine:/etc`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.imageFlags.add(cmd.Flags())
	cmd.Flags().BoolVarP(&o.long, "long", "l", false, "with mode, links, owner, size in bytes and time (UTC)")
	cmd.Flags().BoolVarP(&o.recursive, "recursive", "R", false, "also what lies below")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "also names that begin with a dot")
	cmd.Flags().BoolVar(&o.json, "json", false, "an array of objects for programs, dotted names included")
	return cmd
}

func (o *lsOptions) run(ctx context.Context, arg string) error {
	t := parseTarget(arg)
	r, err := o.request(t.image)
	if err != nil {
		return err
	}
	return o.browse(ctx, r, func(s *session) error {
		v := s.view()
		find := v.Resolve
		if o.long {
			find = v.ResolveNoFollow // as ls -l LINK does
		}
		row, err := find(t.path)
		if err != nil {
			return err
		}
		w := bufio.NewWriter(o.out)
		if o.json {
			err = o.listJSON(ctx, w, v, place{t.path, row})
		} else {
			err = o.list(ctx, &lister{w: w, view: v, terminal: isTerminal(o.out), long: o.long}, place{t.path, row})
		}
		if err != nil {
			return err
		}
		return w.Flush()
	})
}

// place is a path and the row that it leads to.
type place struct {
	path string
	row  uint32
}

// join appends a name to the path of a directory.
func (p place) join(name string) string {
	if strings.HasSuffix(p.path, "/") {
		return p.path + name
	}
	return p.path + "/" + name
}

// children are what the options show of directory p.
func (o *lsOptions) children(v *view, p place) []place {
	var out []place
	for _, e := range v.Children(p.row) {
		if name := v.Name(e); o.all || o.json || !strings.HasPrefix(name, ".") {
			out = append(out, place{name, e.Inode})
		}
	}
	return out
}

func (o *lsOptions) list(ctx context.Context, l *lister, p place) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !isDir(l.view.Inodes[p.row].Mode) {
		return l.write([]place{p})
	}
	if o.recursive {
		if err := l.heading(p.path); err != nil {
			return err
		}
	}
	names := o.children(l.view, p)
	if err := l.write(names); err != nil || !o.recursive {
		return err
	}
	for _, c := range names {
		if isDir(l.view.Inodes[c.row].Mode) {
			if err := o.list(ctx, l, place{p.join(c.path), c.row}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *lsOptions) listJSON(ctx context.Context, w io.Writer, v *view, p place) error {
	out := &array{w: w}
	if !isDir(v.Inodes[p.row].Mode) {
		if err := out.add(v.entry(p.path, p.row)); err != nil {
			return err
		}
		return out.end()
	}
	var below func(p place) error
	below = func(p place) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, c := range o.children(v, p) {
			c.path = p.join(c.path)
			if err := out.add(v.entry(c.path, c.row)); err != nil {
				return err
			}
			if o.recursive && isDir(v.Inodes[c.row].Mode) {
				if err := below(c); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := below(p); err != nil {
		return err
	}
	return out.end()
}

// lister writes listings as ls does.
type lister struct {
	w        io.Writer
	view     *view
	terminal bool
	long     bool
	begun    bool // something was written before
}

func (l *lister) heading(path string) error {
	lead := ""
	if l.begun {
		lead = "\n"
	}
	l.begun = true
	_, err := fmt.Fprintf(l.w, "%s%s:\n", lead, shown(path, l.terminal))
	return err
}

func (l *lister) write(names []place) error {
	var col [4]int // widths of links, uid, gid, size
	if l.long {
		for _, p := range names {
			for i, s := range l.numbers(p.row) {
				col[i] = max(col[i], len(s))
			}
		}
	}
	for _, p := range names {
		if err := l.line(p, col); err != nil {
			return err
		}
	}
	return nil
}

// numbers are the columns that are aligned to the right.
func (l *lister) numbers(row uint32) [4]string {
	n := &l.view.Inodes[row]
	size := strconv.FormatInt(n.Size, 10)
	if t := n.Mode & typeMask; t == typeChar || t == typeBlock {
		size = fmt.Sprintf("%d, %d", n.RdevMajor, n.RdevMinor)
	}
	u := func(v uint32) string { return strconv.FormatUint(uint64(v), 10) }
	return [4]string{u(n.Nlink), u(n.UID), u(n.GID), size}
}

// line writes one name; with its attributes if there are widths for them.
func (l *lister) line(p place, col [4]int) error {
	name := shown(p.path, l.terminal)
	if col == [4]int{} {
		_, err := fmt.Fprintln(l.w, name)
		return err
	}
	n := &l.view.Inodes[p.row]
	if n.Mode&typeMask == typeSymlink {
		name += " -> " + shown(l.view.Link(p.row), l.terminal)
	}
	s := l.numbers(p.row)
	_, err := fmt.Fprintf(l.w, "%s %*s %*s %*s %*s %s %s\n", modeString(n.Mode),
		col[0], s[0], col[1], s[1], col[2], s[2], col[3], s[3], mtime(n).Format("2006-01-02 15:04"), name)
	return err
}
