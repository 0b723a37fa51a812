package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/internal/sentinel"
	"github.com/peelfs/peel/manifest"
)

const profileHelp = `Profiles say what is read of an image first.

While an image is mounted, peel notes what is read in the two minutes after the
first byte. The next mount fetches that ahead, in the same order, by a few long
requests, while the workload starts. What several runs read gains weight, what
they no longer read fades. There is one profile for each --entrypoint that a
mount was made with.

A profile can be attached to its image in the registry: peel mount finds it by
itself, and begins with it where this machine has watched no run. It never keeps
a mount waiting. An image is asked about once a day.`

func (a *app) profileCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Show, share and remove what mounts have learned of what is read first",
		Long:  profileHelp,
		Example: `  peel profile show debian:12
  peel profile push registry.example/team/app:v1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return withRemedy(usagef("unknown command %q", "profile "+args[0]), "see: %s --help", cmd.CommandPath())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.profileRecordCommand(), a.profileShowCommand(), a.profilePushCommand(), a.profilePullCommand(), a.profileRemoveCommand())
	return cmd
}

// profileFlags say which profile of an image is meant.
type profileFlags struct {
	platform   string
	entrypoint string
	json       bool
}

func (f *profileFlags) add(to *pflag.FlagSet) {
	to.StringVar(&f.platform, "platform", "", "`os/arch[/variant]` of the image (default linux on this processor)")
	to.StringVar(&f.entrypoint, "entrypoint", "", "`name` that the mounts were given")
	to.BoolVar(&f.json, "json", false, "an object for programs")
}

// request is the image that is meant.
func (f *profileFlags) request(arg string) (request, error) {
	flags := imageFlags{platform: f.platform}
	r, err := flags.request(arg)
	if err == nil && r.ref.Transport() != "" {
		err = withRemedy(usagef("%s lies on this machine, where nothing has to be fetched ahead", arg), "name the image as its registry has it")
	}
	return r, errors.Join(err, manifest.CheckEntrypoint(f.entrypoint))
}

// named is how people call the profile of an entrypoint.
func (f *profileFlags) named() string {
	if f.entrypoint == "" {
		return "profile"
	}
	return fmt.Sprintf("profile of entrypoint %q", f.entrypoint)
}

// resolved is an image of which only the manifest is read.
type resolved struct {
	image *manifest.Image
	from  source
	log   *logrus.Entry
	shelf shelf
}

// withResolved asks the registry for the image that arg names, for use.
func (f *profileFlags) withResolved(ctx context.Context, a *app, arg string, use func(r *resolved) error) (err error) {
	want, err := f.request(arg)
	if err != nil {
		return err
	}
	log, err := a.logger(a.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	c, err := a.openCache()
	if err != nil {
		return err
	}
	return a.withSource(ctx, arg, func(from source, ref manifest.Reference) error {
		img, err := manifest.Resolve(ctx, from, ref, want.platform)
		if err != nil {
			return err
		}
		return use(&resolved{image: img, from: from, log: log, shelf: shelf{c}})
	})
}

// kept returns the profile that is meant; it is an error if there is none.
func (f *profileFlags) kept(s shelf, m *manifest.Image, log *logrus.Entry) (*fs.KeptProfile, error) {
	k := fs.ReadProfile(s, fs.ProfileName{Image: m.Desc.Digest, Entrypoint: f.entrypoint}, log)
	if k.Profile != nil {
		return k, nil
	}
	others, err := fs.ProfileNames(s, m.Desc.Digest)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%w: no %s is here", errdefs.ErrNotFound, f.named())
	if len(others) > 0 {
		list := ""
		for _, n := range others {
			list += fmt.Sprintf(" --entrypoint %q", n.Entrypoint)
		}
		return nil, withRemedy(err, "there is one with:%s", list)
	}
	return nil, withRemedy(err, "mount the image, use it and unmount it, or fetch one that others have made: peel profile pull %s", m.Reference)
}

type profileRecordOptions struct {
	*app
	json bool
}

func (a *app) profileRecordCommand() *cobra.Command {
	o := &profileRecordOptions{app: a}
	cmd := &cobra.Command{
		Use:   "record [flags] DIR",
		Short: "Write down now what was read first of a mount",
		Long: `Write down now what was read first of the mount on DIR, as happens by itself every
half minute and when it is unmounted. Until then the run counts as one under way.`,
		Example: `  peel profile record /mnt
  peel profile record --json /mnt`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "an object for programs")
	return cmd
}

func (o *profileRecordOptions) run(ctx context.Context, dir string) error {
	root, err := o.mountsDir()
	if err != nil {
		return err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return noMount(dir, err)
	}
	at, err := realPath(dir)
	if err != nil {
		return noMount(dir, err)
	}
	var r recorded
	if err := fs.Ask(ctx, root, at, fs.Question{Pattern: recordPattern, Out: &r}); err != nil {
		if errdefs.IsNotFound(err) || errors.Is(err, iofs.ErrNotExist) {
			return noMount(dir, err)
		}
		return err
	}
	r.Mountpoint = at
	if o.json {
		return writeJSON(o.out, r)
	}
	_, err = fmt.Fprintf(o.out, "%s (%s): %s\n", r.Reference, shortDigest(r.Digest), counted(r.Touches, "place"))
	return err
}

// errNoMount: no record of a mount, or nobody who serves it.
var errNoMount = sentinel.New("no live mount", errdefs.ErrNotFound)

// noMount says that no server of a mount on dir was found.
func noMount(dir string, err error) error {
	err = fmt.Errorf("%s: %w of this cache folder: %w", dir, errNoMount, err)
	return withRemedy(err, "peel ps lists the mounts; another cache folder is chosen with --cache")
}
