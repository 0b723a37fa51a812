package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/manifest"
)

// app is what every command has: where to write, and the global flags.
type app struct {
	streams
	clientFlags
	cache    string
	logLevel string
}

// cacheEnv names the cache folder where --cache does not.
const cacheEnv = "PEEL_CACHE"

const rootHelp = `peel shows container images without pulling them.

  peel mount alpine /mnt          mount an image; only what is read is fetched
  peel ls -l alpine:/etc          look into it without mounting
  peel cat alpine:/etc/os-release
  peel demo                       see what it does, in one minute
  peel login ghcr.io              the logins of docker and podman work as well
  peel fetch alpine sha256:...    any object of a registry, as it is

Images are named as for docker. What was fetched is kept in the cache folder:
--cache, else ` + cacheEnv + `, else /var/lib/peel for root and ~/.cache/peel for others.
Indexes of images that others own are looked for in the repository --index, else
` + indexEnv + `.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 image or path not found, 4 login
needed or access denied, 5 verification failed, 6 registry unreachable, 130
interrupted.`

func newRoot(s streams) *cobra.Command {
	a := &app{streams: s}
	root := &cobra.Command{
		Use:               "peel",
		Short:             "Show container images without pulling them",
		Long:              rootHelp,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              knownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: a.prepare,
	}
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withRemedy(usagef("%w", err), "see: %s --help", cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.cache, "cache", "", "`folder` that holds all state of a run (default $"+cacheEnv+")")
	a.add(f)
	f.StringVar(&a.logLevel, "log-level", "", "`level` of the log: error, warn, info, debug (default warn; info for servers of mounts)")
	root.AddCommand(
		a.mountCommand(), a.umountCommand(), a.psCommand(), a.pullCommand(), a.imagesCommand(),
		a.resolveCommand(), a.fetchCommand(), a.manifestCommand(), a.configCommand(), a.tagsCommand(), a.referrersCommand(),
		a.loginCommand(), a.logoutCommand(),
		a.lsCommand(), a.catCommand(), a.treeCommand(), a.statCommand(), a.inspectCommand(), a.explainCommand(),
		a.indexCommand(), a.profileCommand(), a.verifyCommand(), a.convertCommand(), a.saveCommand(), a.layersCommand(), a.doctorCommand(), a.demoCommand(), a.versionCommand(),
	)
	blaming(root)
	return root
}

// blaming has all commands below cmd say who can help with wrong bytes of the
// image that their first argument names.
func blaming(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		blaming(c)
		do := c.RunE
		if do == nil {
			continue
		}
		c.RunE = func(c *cobra.Command, args []string) error {
			err := do(c, args)
			if err == nil || len(args) == 0 {
				return err
			}
			image, _, _ := manifest.SplitPath(args[0])
			if ref, bad := manifest.ParseReference(image); bad == nil {
				err = blame(err, ref)
			}
			return err
		}
	}
}

// prepare is what all commands do first.
func (a *app) prepare(cmd *cobra.Command, args []string) error {
	if _, err := a.logger(io.Discard, logrus.WarnLevel); err != nil {
		return err
	}
	return a.prepareLogin(cmd, args)
}

// knownCommand is the root's: whatever arrives there is not a command.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := usagef("unknown command %q", args[0])
	for _, edits := range []int{1, 2} { // the nearest first
		cmd.SuggestionsMinimumDistance = edits
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return withRemedy(err, "did you mean: peel %s", near[0])
		}
	}
	return withRemedy(err, "see: peel --help")
}

// takes makes a wrong number of arguments an error of usage.
func takes(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return withRemedy(usagef("%w", err), "usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// cacheDir is the absolute path of the cache folder, which may not exist yet.
func (a *app) cacheDir() (string, error) {
	dir := a.cache
	if dir == "" {
		dir = os.Getenv(cacheEnv)
	}
	if dir == "" {
		return cache.Dir()
	}
	return filepath.Abs(dir)
}

// mountsDir is where the records of mounts are.
func (a *app) mountsDir() (string, error) {
	dir, err := a.cacheDir()
	return filepath.Join(dir, "mounts"), err
}

// logger writes to w from the level that the user chose on, or else from level.
func (a *app) logger(w io.Writer, level logrus.Level) (*logrus.Entry, error) {
	l := logrus.New()
	l.SetOutput(w)
	l.SetLevel(level)
	l.SetFormatter(&logrus.TextFormatter{FullTimestamp: true})
	if a.logLevel != "" {
		chosen, err := logrus.ParseLevel(a.logLevel)
		if err != nil {
			return nil, withRemedy(usagef("--log-level %q: %w", a.logLevel, errors.New("no such level")), "it is one of: error, warn, info, debug")
		}
		l.SetLevel(chosen)
	}
	return logrus.NewEntry(l), nil
}

// isTerminal reports whether people read what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
