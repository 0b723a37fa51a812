package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type saveOptions struct {
	*app
	to       string
	platform string
	all      bool
}

const saveHelp = `Save images to a file or folder, with the bytes and digests that they have.

  oci:DIR[:TAG]                   OCI image layout; what is there already stays
  oci-archive:FILE[:TAG]          the same in a tar
  docker-archive:FILE[:NAME:TAG]  tar for docker load
  dir:DIR                         folder with one image, as skopeo has it
  FILE, or - for standard output  docker-archive

In a layout an image is called by its tag, as skopeo reads it. If another image
there has that tag already, or if several are saved at once, it is called by its
whole name, like ghcr.io/owner/name:tag; an image saved again takes the place of
what it was. With :TAG it takes that, whoever had it.

Each of them is also the name of an image for all commands of peel. Every blob
is verified as it is written, and nothing has its final name before all of it
is there. Layers are not compressed anew. An image of a registry is read from
there, even after peel pull: the cache keeps what layers unpack to, not their own
bytes. To have both, pull with peel pull --destination DIR.

Saved is the image of one platform, or with --all everything that an index
leads to, attestations included. A manifest of Docker schema 1 is saved in the
form of today, which has another digest; dir: takes it as it is. A layout takes
Docker's manifests of schema 2 as they are, though skopeo and podman find only
OCI's there; for these tools, save them to docker-archive: or dir:.

Layers that only their makers may distribute are not saved, only what is said
of them, unless --foreign-layers names the hosts that they may be read from.`

func (a *app) saveCommand() *cobra.Command {
	o := &saveOptions{app: a}
	cmd := &cobra.Command{
		Use:   "save [flags] IMAGE... [-o DESTINATION]",
		Short: "Save images to a file or folder",
		Long:  saveHelp,
		Example: `  peel save alpine busybox -o images.tar
  peel save ghcr.io/owner/name:tag -o oci:images --all
  peel save docker-archive:images.tar:alpine -o dir:alpine
  peel save alpine | ssh host docker load`,
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.to, "output", "o", "-", "`destination`: oci:DIR, oci-archive:FILE, docker-archive:FILE, dir:DIR, or FILE")
	f.StringVar(&o.platform, "platform", "", "`os/arch[/variant]` of the image (default linux on this processor)")
	f.BoolVar(&o.all, "all", false, "all platforms (oci: and oci-archive:)")
	return cmd
}

// saveJob is a command line, all its words checked.
type saveJob struct {
	refs     []manifest.Reference
	to       saveDestination
	platform ocispec.Platform
	all      bool
}

func (o *saveOptions) prepare(args []string) (j saveJob, err error) {
	for _, arg := range args {
		ref, err := manifest.ParseReference(arg)
		if err != nil {
			return j, err
		}
		j.refs = append(j.refs, ref)
	}
	if j.to, err = parseSaveDestination(o.to); err != nil {
		return j, err
	}
	if j.platform = manifest.DefaultPlatform(); o.platform != "" {
		if j.platform, err = manifest.ParsePlatform(o.platform); err != nil {
			return j, err
		}
	}
	j.all = o.all
	switch {
	case len(j.refs) > 1 && j.to.transport == manifest.TransportDir:
		return j, withRemedy(usagef("%s holds one image", j.to), "save each to a folder of its own, or all to oci:DIR")
	case len(j.refs) > 1 && j.to.name != "":
		return j, withRemedy(usagef("%q is the name of one image", j.to.name), "leave it out: each image keeps its own name")
	case j.all && o.platform != "":
		return j, withRemedy(usagef("--all and --platform"), "give one of the two")
	case j.all && !j.to.isLayout():
		return j, withRemedy(usagef("%s holds the image of one platform", j.to.transport+":"), "save all to oci:DIR or oci-archive:FILE")
	case j.to.path == "" && isTerminal(o.out):
		return j, withRemedy(usagef("an archive is not for a terminal"), "add -o FILE.tar, or -o oci:DIR")
	}
	return j, nil
}

func (o *saveOptions) run(ctx context.Context, args []string) error {
	j, err := o.prepare(args)
	if err != nil {
		return err
	}
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	place, err := j.to.open(o.out)
	if err != nil {
		return err
	}
	r := &saveRun{saveOptions: o, saveJob: j, place: place, progress: newConvertProgress(), log: log}
	done := o.showConversion(ctx, r.progress)
	saved, err := r.each(ctx)
	done()
	if err = place.finish(ctx, err); j.to.path == "" {
		return o.onOutput(err)
	}
	if err != nil {
		return err
	}
	for i, ref := range j.refs {
		if _, err := fmt.Fprintf(o.out, "%s@%s\n", unpinned(ref), saved[i].Digest); err != nil {
			return err
		}
	}
	return nil
}

// onOutput names standard output, if writing to it has failed.
func (o *saveOptions) onOutput(err error) error {
	out, ok := o.out.(*os.File)
	var on *fs.PathError
	if !ok || !errors.As(err, &on) || on.Path != out.Name() {
		return err
	}
	err = fmt.Errorf("docker-archive to standard output: %w", on.Err)
	if errors.Is(err, syscall.ENOSPC) {
		return withRemedy(err, "free some space where standard output leads, or write elsewhere with -o")
	}
	return err
}

// saveRun saves images to one place.
type saveRun struct {
	*saveOptions
	saveJob
	place    *savePlace
	progress *convertProgress
	log      *logrus.Entry
}

// each saves all images and returns what they are now.
func (r *saveRun) each(ctx context.Context) ([]ocispec.Descriptor, error) {
	var saved []ocispec.Descriptor
	for _, ref := range r.refs {
		d, err := r.one(ctx, ref)
		if err != nil {
			return nil, blame(fmt.Errorf("save %s: %w", ref, err), ref)
		}
		saved = append(saved, d)
	}
	return saved, nil
}

func (r *saveRun) one(ctx context.Context, ref manifest.Reference) (d ocispec.Descriptor, err error) {
	from, err := r.source(ctx, ref, r.log)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	var known []string
	if place, ok := from.(here); ok {
		known = place.Names()
	}
	s := &saving{
		conversion: newConversion(from, convertJob{from: ref}, r.log),
		to:         r.place, names: r.names(ref, known), abroad: len(r.foreign) > 0,
	}
	s.progress = r.progress
	if r.saveJob.all {
		d, err = s.everything(ctx)
	} else {
		d, err = s.image(ctx, r.saveJob.platform)
	}
	if n := s.left.Load(); err == nil && n > 0 {
		r.log.Warnf("%s: %d layers that only their makers may distribute were left out; to save them too, add --foreign-layers HOST", ref, n)
	}
	return d, err
}

// unpinned is ref without its digest.
func unpinned(ref manifest.Reference) string {
	switch _, pinned := ref.Digest(); {
	case !pinned:
		return ref.String()
	case ref.Transport() != "":
		return ref.Transport() + ":" + ref.Location()
	}
	if tagged, ok := ref.Named().(reference.NamedTagged); ok {
		return untilTag(tagged).String()
	}
	return ref.Named().Name()
}
