package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/manifest"
)

type profilePushOptions struct {
	*app
	profileFlags
}

func (a *app) profilePushCommand() *cobra.Command {
	o := &profilePushOptions{app: a}
	cmd := &cobra.Command{
		Use:   "push [flags] IMAGE",
		Short: "Attach what this machine has learned to the image",
		Long: `Attach the profile of an image to it: an OCI 1.1 artifact whose subject is the
platform's manifest. peel mount finds it on other machines, and begins with it. Of
several with one entrypoint the latest is used. Pushing again changes nothing.`,
		Example: `  peel profile push registry.example/team/app:v1
  peel profile push --entrypoint worker registry.example/team/app:v1`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.profileFlags.add(cmd.Flags())
	return cmd
}

// sharedReport is what push and pull tell programs.
type sharedReport struct {
	Reference  string `json:"reference"`
	Digest     string `json:"digest"` // of the platform's manifest
	Entrypoint string `json:"entrypoint"`
	Runs       int    `json:"runs"`
	Touches    int    `json:"touches"`
	Pushed     string `json:"pushed,omitempty"` // what names the profile now
}

func (o *profilePushOptions) run(ctx context.Context, arg string) error {
	return o.withResolved(ctx, o.app, arg, func(r *resolved) error {
		k, err := o.kept(r.shelf, r.image, r.log)
		if err != nil {
			return fmt.Errorf("%s: %w", r.image.Reference, err)
		}
		report := reportOf(r.image, k.Profile)
		if report.Pushed, err = attachProfile(ctx, r, k.Profile); err != nil {
			return fmt.Errorf("%s: %w", r.image.Reference, mayAttach(err))
		}
		if o.json {
			return writeJSON(o.out, report)
		}
		_, err = fmt.Fprintln(o.out, report.Pushed)
		return err
	})
}

func reportOf(m *manifest.Image, p *manifest.Profile) sharedReport {
	return sharedReport{
		Reference: m.Reference.String(), Digest: m.Desc.Digest.String(), Entrypoint: p.Entrypoint, Runs: p.Runs, Touches: len(p.Touches),
	}
}

// mayAttach adds to an error of pushing what to do about it.
func mayAttach(err error) error {
	if told := new(remedied); errors.As(mayPush(err), &told) {
		return withRemedy(err, "log in with an account that may push to the image's repository: peel login")
	}
	return err
}

// attachProfile pushes a profile as a referrer of the image, and returns the
// name of what was pushed.
func attachProfile(ctx context.Context, r *resolved, p *manifest.Profile) (string, error) {
	packed, err := p.Pack()
	if err != nil {
		return "", err
	}
	d := r.image.Desc
	shared := manifest.SharedProfile{
		Subject:    &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size},
		Entrypoint: p.Entrypoint, Updated: p.Updated,
		Blob: ocispec.Descriptor{MediaType: manifest.ProfileType, Digest: digest.FromBytes(packed), Size: int64(len(packed))},
	}
	raw, err := shared.Encode()
	if err != nil {
		return "", err
	}
	repo := reference.TrimNamed(r.image.Reference.Named())
	to, err := reference.WithTag(repo, manifest.IndexTag(d.Digest)) // which is not written
	if err != nil {
		return "", errors.Join(manifest.ErrReference, err)
	}
	c := newConversion(r.from, convertJob{from: r.image.Reference, to: destination{ref: to}}, r.log)
	if c.sink, err = c.job.to.open(r.from.Registries(), c.repo); err != nil {
		return "", err
	}
	if err := c.putBlob(ctx, shared.Blob, packed); err != nil {
		return "", err
	}
	if err := c.putBlob(ctx, ocispec.DescriptorEmptyJSON, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return "", err
	}
	pushed, err := c.sink.PutManifest(ctx, raw, ocispec.MediaTypeImageManifest, "")
	if err != nil {
		return "", err
	}
	return repo.Name() + "@" + pushed.Digest.String(), nil
}

type profilePullOptions struct {
	*app
	profileFlags
}

func (a *app) profilePullCommand() *cobra.Command {
	o := &profilePullOptions{app: a}
	cmd := &cobra.Command{
		Use:   "pull [flags] IMAGE",
		Short: "Fetch the profile that is attached to an image",
		Long: `Fetch the profile that is attached to an image now, as a mount does by itself. Where
this machine has watched a run of its own, its own profile stays.`,
		Example: `  peel profile pull registry.example/team/app:v1
  peel profile pull --entrypoint worker registry.example/team/app:v1`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.profileFlags.add(cmd.Flags())
	return cmd
}

func (o *profilePullOptions) run(ctx context.Context, arg string) error {
	return o.withResolved(ctx, o.app, arg, func(r *resolved) error {
		p, adopted, err := fs.PullProfile(ctx, r.image, &fs.ProfileOptions{
			Cache: kept{r.shelf.Cache}, Registry: r.from, Entrypoint: o.entrypoint, Log: r.log,
		})
		switch {
		case errdefs.IsNotFound(err):
			return withRemedy(fmt.Errorf("%s: %w", r.image.Reference, err), "who has used it can attach one: peel profile push %s", r.image.Reference)
		case err != nil:
			return fmt.Errorf("%s: %w", r.image.Reference, err)
		case !adopted:
			return withRemedy(fmt.Errorf("%s: the %s of this machine's own runs stays", r.image.Reference, o.named()),
				"remove it first: peel profile rm %s", r.image.Reference)
		case o.json:
			return writeJSON(o.out, reportOf(r.image, p))
		}
		_, err = fmt.Fprintf(o.out, "%s (%s): %s, %s\n", r.image.Reference, shortDigest(p.Image.String()),
			counted(p.Runs, "run"), counted(len(p.Touches), "place"))
		return err
	})
}
