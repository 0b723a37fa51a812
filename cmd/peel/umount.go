package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/fs"
)

type umountOptions struct {
	*app
	all bool
}

func (a *app) umountCommand() *cobra.Command {
	o := &umountOptions{app: a}
	cmd := &cobra.Command{
		Use:     "umount [flags] DIR...",
		Aliases: []string{"unmount"},
		Short:   "Remove mounts; their servers end",
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	cmd.Args = takes(func(cmd *cobra.Command, args []string) error {
		if o.all {
			return cobra.NoArgs(cmd, args)
		}
		return cobra.MinimumNArgs(1)(cmd, args)
	})
	cmd.Flags().BoolVar(&o.all, "all", false, "every mount of the cache folder")
	return cmd
}

func (o *umountOptions) run(ctx context.Context, dirs []string) error {
	root, err := o.mountsDir()
	if err != nil {
		return err
	}
	mounts, err := fs.List(ctx, root)
	if err != nil {
		return err
	}
	chosen := mounts
	var errs []error
	if !o.all {
		chosen = nil
		for _, dir := range dirs {
			m, err := findMount(mounts, dir)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			chosen = append(chosen, m)
		}
	}
	for _, m := range chosen {
		errs = append(errs, o.remove(ctx, root, m))
	}
	return errors.Join(errs...)
}

// findMount finds the mount on dir, however dir is spelled.
func findMount(mounts []fs.Status, dir string) (fs.Status, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fs.Status{}, err
	}
	spellings := []string{abs}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		spellings = append(spellings, real)
	}
	// A mount whose server died cannot be looked at, but its parent can.
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		spellings = append(spellings, filepath.Join(parent, filepath.Base(abs)))
	}
	for _, m := range mounts {
		for _, s := range spellings {
			if m.Mountpoint == s {
				return m, nil
			}
		}
	}
	err = &classed{fmt.Errorf("umount %s: not a mount of this cache folder", dir), errdefs.ErrNotFound}
	return fs.Status{}, withRemedy(err, "peel ps lists them; --cache or %s chooses the folder", cacheEnv)
}

// remove unmounts m, if it is still there, and waits until its server has
// ended.
func (o *umountOptions) remove(ctx context.Context, root string, m fs.Status) error {
	if m.State == fs.StateBroken {
		return errors.New(m.LastError)
	}
	mounts, err := fs.MountsOn(m.Mountpoint)
	if err != nil {
		return fmt.Errorf("umount %s: %w", m.Mountpoint, err)
	}
	at := slices.IndexFunc(mounts, func(on fs.Mounted) bool { return on.Ours() && on.Device == m.Device })
	alive := m.State == fs.StateServing
	switch {
	case at < 0, !alive && at == len(mounts)-1 && fs.Answers(m.Mountpoint):
		// It is gone; what is there now, even with its device number, is another's.
	case at < len(mounts)-1:
		top := mounts[len(mounts)-1]
		return withRemedy(fmt.Errorf("umount %s: %s (%s) is mounted over it", m.Mountpoint, top.Source, top.Type),
			"remove that first: umount %s", m.Mountpoint)
	default:
		err := fs.Unmount(m.Mountpoint)
		if errors.Is(err, syscall.EBUSY) {
			return withRemedy(err, "somebody has files open there, or stands in it; see: fuser -vm %s", m.Mountpoint)
		}
		if err != nil {
			return err
		}
	}
	if !alive {
		return fs.Forget(root, m.Mountpoint)
	}
	if err := waitGone(ctx, m.ServerPID); err != nil {
		return fmt.Errorf("umount %s: not mounted any more, but its server (process %d) is still there: %w", m.Mountpoint, m.ServerPID, err)
	}
	return nil
}
