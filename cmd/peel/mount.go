package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/manifest"
)

type mountOptions struct {
	*app
	imageFlags
	tuning
	foreground bool
	allowOther bool
	early      bool
	json       bool
	leashed    bool // this is the server that another peel mount started
}

const mountHelp = `Mount an image on an existing directory, read-only.

The command returns when the mount answers; a process of its own serves it in
the background until it is unmounted (peel umount, umount or fusermount3 -u),
and logs below the cache folder. Ctrl-C before that undoes everything.

What a tag was resolved to is used again, without asking the registry, as by
docker run; --pull always asks. With --foreground this process serves, logs to
standard error, and unmounts when it gets SIGINT or SIGTERM.

IMAGE may lie on this machine: oci:DIR[:TAG], oci-archive:FILE[:TAG],
docker-archive:FILE[:NAME[:TAG]], docker-dir:DIR[:NAME[:TAG]], dir:DIR. It is read
where it lies, and must stay as it is while it is mounted. --pull and --index
change nothing for it.

Layers without a table of contents are read by an index that somebody has made
of them (peel index, SOCI): one attached to the image, or one in the repository
that --index names. Without one they are read whole, once. What an index says is
a claim; --require proved does without those that peel verify has not proved.

Layers that must be streamed keep the mount waiting. With --early it answers at
once and shows each file as soon as no upper layer can change it, before the
digests of its layer have matched; what is not known yet waits. Should they not
match in the end, everything answers EIO. This is less strict: see
docs/semantics.md.

What is read first is remembered (peel profile), for each --entrypoint by itself,
and fetched ahead by the next mount; what no run has shown is guessed. --prefetch
none does neither, --no-record remembers nothing. --fill fetches all the rest
while no reader waits, and proves each layer that is whole. --trace writes an
object in a line of JSON for each read: when, of what, from where, how long.
None of these changes what is read. peel explain DIR tells what they came to.`

func (a *app) mountCommand() *cobra.Command {
	o := &mountOptions{app: a}
	cmd := &cobra.Command{
		Use:   "mount [flags] IMAGE DIR",
		Short: "Mount an image; only what is read is fetched",
		Long:  mountHelp,
		Example: `  peel mount alpine /mnt
  peel mount --platform linux/arm64 ghcr.io/owner/name:tag /mnt
  peel mount docker-archive:saved.tar /mnt
  peel mount --fill --fill-rate 5MB alpine /mnt
  peel mount --entrypoint worker --trace reads.jsonl registry.example/team/app:v1 /mnt`,
		Args: takes(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1]) },
	}
	f := cmd.Flags()
	o.imageFlags.add(f)
	o.tuning.add(f)
	f.BoolVarP(&o.foreground, "foreground", "f", false, "serve in this process, until it is unmounted or interrupted")
	f.BoolVar(&o.allowOther, "allow-other", false, "let other users in (needs user_allow_other in /etc/fuse.conf unless root)")
	f.BoolVar(&o.early, "early", false, "mount at once, and show files of streamed layers before these are proved")
	f.BoolVar(&o.json, "json", false, "an object for programs when the mount answers")
	f.BoolVar(&o.leashed, "leashed", false, "serve at the end of a socket")
	f.Lookup("leashed").Hidden = true
	return cmd
}

// job is a mount that is to be made, everything checked that can be checked
// without a network.
type job struct {
	request
	dir      string // absolute, without symlinks
	cacheDir string
}

func (o *mountOptions) run(ctx context.Context, ref, dir string) error {
	if o.leashed {
		return o.serveLeashed(ctx, ref, dir)
	}
	j, err := o.prepare(ref, dir)
	if err != nil {
		return err
	}
	release, err := j.claim()
	if err != nil {
		return err
	}
	defer release()
	if o.foreground {
		return o.serve(ctx, j, &attended{o, release})
	}
	m, err := o.background(ctx, j)
	if err != nil {
		return err
	}
	return o.tell(m)
}

// prepare makes a job of the arguments.
func (o *mountOptions) prepare(ref, dir string) (j job, err error) {
	if j.request, err = o.request(ref); err != nil {
		return j, err
	}
	j.early, j.traffic = o.early, o.traffic()
	if err := manifest.CheckEntrypoint(o.entrypoint); err != nil {
		return j, withRemedy(usagef("--entrypoint: %w", err), "choose a short name")
	}
	if o.prefetch != prefetchNone {
		j.profile = &fs.ProfileSearch{Entrypoint: o.entrypoint}
	}
	if o.fillRate != 0 && !o.fill {
		return j, withRemedy(usagef("--fill-rate says how fast --fill may be, which is not given"), "add --fill")
	}
	if o.trace != "" {
		if o.trace, err = filepath.Abs(o.trace); err != nil { // the server works elsewhere
			return j, err
		}
	}
	return j, j.check(o.app, dir)
}

// check finds out whether dir can be mounted on with the cache that is chosen.
func (j *job) check(a *app, dir string) error {
	if err := fs.CheckMountpoint(dir); err != nil {
		return unusable(dir, err)
	}
	if err := canMount(); err != nil {
		return err
	}
	cacheDir, err := a.cacheDir()
	if err != nil {
		return err
	}
	c, err := cache.Open(cacheDir)
	if err != nil {
		return err
	}
	if j.cacheDir, err = realPath(c.Dir()); err != nil {
		return err
	}
	if j.dir, err = realPath(dir); err != nil {
		return err
	}
	if within(j.dir, j.cacheDir) || within(j.cacheDir, j.dir) {
		return withRemedy(fmt.Errorf("mount on %s: the cache folder %s and the mount must not lie in each other",
			j.dir, j.cacheDir), "mount elsewhere, or choose another cache folder with --cache")
	}
	return j.checkPlace()
}

// checkPlace refuses a mount that would hide the image that it shows.
func (j *job) checkPlace() error {
	if j.ref.Transport() == "" {
		return nil
	}
	at, err := realPath(j.ref.Location())
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return nil // as opening it will tell
	case err != nil:
		return fmt.Errorf("%s: %w", j.ref, err)
	case within(at, j.dir):
		return withRemedy(fmt.Errorf("mount on %s: %s lies in it", j.dir, j.ref), "mount elsewhere")
	}
	return nil
}

// unusable adds to err, of fs.CheckMountpoint(dir), what to do about it.
func unusable(dir string, err error) error {
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return withRemedy(err, "make it: mkdir -p %s", dir)
	case errors.Is(err, fs.ErrDeadMount):
		return withRemedy(err, "remove it: peel umount %s (or fusermount3 -u %s, if no cache folder knows of it)", dir, dir)
	case errors.Is(err, fs.ErrMounted):
		return withRemedy(err, "choose another directory, or remove what is there; see: findmnt %s", dir)
	}
	return err
}

func realPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// within reports whether dir is folder or lies in it; both are clean.
func within(dir, folder string) bool {
	rel, err := filepath.Rel(folder, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// mounted is what is told of a mount that answers.
type mounted struct {
	fs.Record
	Resolved time.Time `json:"resolved"` // when the registry last said what the reference means
	Local    bool      `json:"local"`    // no registry was asked
	Pinned   bool      `json:"pinned"`   // the reference names a digest, or an image on this machine
}

// tell says that the mount answers: to programs that ask, and to people.
func (o *mountOptions) tell(m mounted) error {
	if o.json {
		return writeJSON(o.out, m)
	}
	if !isTerminal(o.err) {
		return nil
	}
	age := ""
	if m.Local && !m.Pinned {
		age = fmt.Sprintf(", as resolved %s ago (--pull always asks again)", ago(m.Resolved))
	}
	_, err := fmt.Fprintf(o.err, "%s (%s) is mounted on %s%s\n", m.Reference, shortDigest(m.Digest), m.Mountpoint, age)
	return err
}

// describe is the record of the mount that s is to be shown by.
func (j *job) describe(s *session, logFile string) fs.Record {
	return fs.Record{
		Mountpoint: j.dir, Reference: j.ref.String(), Digest: s.image.Manifest.Desc.Digest.String(),
		Platform: platforms.FormatAll(s.image.Config.Platform), ServerPID: pid(), Since: time.Now().UTC(), LogFile: logFile,
	}
}

// attended reports to the people in front of a --foreground mount.
type attended struct {
	*mountOptions
	release func() // of the claim on the mount point
}

func (t *attended) log() (*logrus.Entry, error) { return t.logger(t.err, logrus.WarnLevel) }
func (t *attended) logFile() string             { return "" }

func (t *attended) ready(m mounted) error {
	t.release()
	return t.tell(m)
}

func (t *attended) watch(ctx context.Context, p *fs.Progress) (stop func()) {
	return t.showProgress(ctx, p)
}

// errHungUp: whoever started this server has gone before the mount answered.
var errHungUp = errors.New("peel mount went away before the mount answered")
