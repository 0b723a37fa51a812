package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type indexPushOptions struct {
	*app
	sociFlags
	format   indexFormat
	platform string
	to       string
	json     bool
}

const indexPushHelp = `Share the indexes of an image, so that others mount it lazily at once.

The indexes are attached to the image: an OCI 1.1 artifact whose subject is the
platform's manifest. Registries list it as a referrer; where one knows none, the
referrers tag of the distribution specification is kept. peel mount finds it.

With --to REPO they go to another repository, for images that you cannot push
to. There, peel mount --index REPO finds them by the image, and by each layer,
so that an image with the same base layers finds some too.

Only what a pass over the whole blob has proved is pushed; layers that nobody
has read whole on this machine are read now. Pushing again changes nothing.

With --format soci a new image is pushed to --to IMAGE: the same layers, and a
SOCI index of version 2 for each platform.`

func (a *app) indexPushCommand() *cobra.Command {
	o := &indexPushOptions{app: a, format: formatPeel}
	cmd := &cobra.Command{
		Use:   "push [flags] IMAGE",
		Short: "Attach an image's indexes to it, or push them elsewhere",
		Long:  indexPushHelp,
		Example: `  peel index push registry.example/team/app:v1
  peel index push --to registry.example/indexes debian
  peel index push --format soci --to registry.example/team/app:soci registry.example/team/app:v1`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.Var(&o.format, "format", "peel or soci")
	f.StringVar(&o.platform, "platform", "", "`os/arch[/variant]` of the image (default linux on this processor; soci: all)")
	f.StringVar(&o.to, "to", "", "`repository` to push to instead; an image for --format soci")
	f.BoolVar(&o.json, "json", false, "an object for programs")
	o.sociFlags.add(f)
	return cmd
}

func (o *indexPushOptions) run(ctx context.Context, arg string) (err error) {
	flags := imageFlags{platform: o.platform}
	r, err := flags.request(arg)
	if err != nil {
		return err
	}
	if o.format == formatSOCI {
		if o.to == "" {
			return withRemedy(usagef("SOCI indexes change the image, which has to go somewhere"), "add --to IMAGE; it may be the tag it has")
		}
		to, err := parseDestination(o.to)
		if err != nil {
			return err
		}
		return o.soci(ctx, sociJob{from: r, to: to, all: o.platform == "", sociFlags: o.sociFlags, json: o.json})
	}
	if err := o.sociFlags.refuse(); err != nil {
		return err
	}
	to := reference.TrimNamed(r.ref.Named())
	if o.to != "" {
		if to, err = parseRepository(o.to); err != nil {
			return err
		}
	}
	x, layers, err := o.indexImage(ctx, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.from.Close()) }()
	made := newIndexes(x, layers)
	if len(made.indexes.Layers) > 0 {
		if o.to == "" {
			err = made.attach(ctx, to)
		} else {
			err = made.push(ctx, to)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.ref, mayPush(err))
		}
	}
	return made.tell(o.app, o.json)
}

// mayPush adds to an error of pushing what to do about it.
func mayPush(err error) error {
	if errdefs.IsPermissionDenied(err) || errdefs.IsUnauthorized(err) {
		return withRemedy(err, "log in with an account that may push there, or push to a repository of your own: peel index push --to REPO, and then peel mount --index REPO")
	}
	return err
}

// parseRepository reads the name of a repository, which has neither tag nor
// digest.
func parseRepository(s string) (reference.Named, error) {
	ref, err := manifest.ParseReference(s)
	if err != nil {
		return nil, err
	}
	name := reference.TrimNamed(ref.Named())
	if typed, err := reference.ParseNormalizedNamed(s); err != nil || !reference.IsNameOnly(typed) {
		return nil, withRemedy(usagef("%q is no repository: it has a tag or a digest", s), "leave them out: %s", reference.FamiliarName(name))
	}
	return name, nil
}

// madeIndexes are the indexes of an image, to be written.
type madeIndexes struct {
	*indexing
	layers  []indexedLayer // of the image, bottom first
	indexes manifest.Indexes

	pushed []string // what names them now
}

func newIndexes(x *indexing, layers []indexedLayer) *madeIndexes {
	m := &madeIndexes{indexing: x, layers: layers, indexes: manifest.Indexes{Layers: map[digest.Digest]ocispec.Descriptor{}}}
	for _, l := range layers {
		if l.Skipped == "" {
			m.indexes.Layers[digest.Digest(l.Digest)] = l.descriptor()
		}
	}
	return m
}

// attach pushes the indexes as a referrer of the image.
func (m *madeIndexes) attach(ctx context.Context, repo reference.Named) error {
	d := m.image.Desc
	m.indexes.Subject = &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	c, err := m.sink(ctx, repo)
	if err != nil {
		return err
	}
	return m.put(ctx, c, m.indexes, "")
}

// push pushes the indexes to a repository that the image is not in, where tags
// tell which image and which layers they are of.
func (m *madeIndexes) push(ctx context.Context, repo reference.Named) error {
	c, err := m.sink(ctx, repo)
	if err != nil {
		return err
	}
	for _, of := range slices.Sorted(maps.Keys(m.indexes.Layers)) {
		one := manifest.Indexes{Layers: map[digest.Digest]ocispec.Descriptor{of: m.indexes.Layers[of]}}
		if err := m.put(ctx, c, one, manifest.IndexTag(of)); err != nil {
			return err
		}
	}
	return m.put(ctx, c, m.indexes, manifest.IndexTag(m.image.Desc.Digest))
}

// write writes the indexes to a layout, as they would be attached.
func (m *madeIndexes) write(ctx context.Context, to destination) error {
	d := m.image.Desc
	m.indexes.Subject = &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	c := newConversion(m.from, convertJob{from: m.image.Reference, to: to}, m.log)
	var err error
	if c.sink, err = to.open(m.from.Registries(), c.repo); err != nil {
		return err
	}
	if err := m.putBlobs(ctx, c); err != nil {
		return err
	}
	return m.put(ctx, c, m.indexes, to.tag)
}

// sink gives the repository the blobs that manifests are to name.
func (m *madeIndexes) sink(ctx context.Context, repo reference.Named) (*conversion, error) {
	tagged, err := reference.WithTag(repo, manifest.IndexTag(m.image.Desc.Digest))
	if err != nil {
		return nil, errors.Join(manifest.ErrReference, err)
	}
	c := newConversion(m.from, convertJob{from: m.image.Reference, to: destination{ref: tagged}}, m.log)
	if c.sink, err = c.job.to.open(m.from.Registries(), c.repo); err != nil {
		return nil, err
	}
	return c, m.putBlobs(ctx, c)
}

func (m *madeIndexes) putBlobs(ctx context.Context, c *conversion) error {
	for _, l := range m.layers {
		if l.Skipped != "" {
			continue
		}
		if err := c.putBlob(ctx, l.descriptor(), l.packed); err != nil {
			return err
		}
	}
	return c.putBlob(ctx, ocispec.DescriptorEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
}

// put writes a manifest of indexes whose blobs are there.
func (m *madeIndexes) put(ctx context.Context, c *conversion, x manifest.Indexes, tag string) error {
	raw, err := x.Encode()
	if err != nil {
		return err
	}
	d, err := c.sink.PutManifest(ctx, raw, ocispec.MediaTypeImageManifest, tag)
	if err != nil {
		return err
	}
	name := layoutPrefix + c.job.to.dir
	if c.job.to.ref != nil {
		name = c.job.to.ref.Name()
	}
	if tag != "" {
		name += ":" + tag
	}
	m.pushed = append(m.pushed, name+"@"+d.Digest.String())
	return nil
}

// indexesReport is what create and push tell programs.
type indexesReport struct {
	Reference string         `json:"reference"`
	Digest    string         `json:"digest"`           // of the platform's manifest; with SOCI, of the new image
	Pushed    []string       `json:"pushed,omitempty"` // what names the indexes now
	Layers    []indexedLayer `json:"layers"`           // bottom first
}

// tell says what was made, and where it is.
func (m *madeIndexes) tell(a *app, json bool) error { //nolint:revive // for whom, as everywhere
	if json {
		return writeJSON(a.out, indexesReport{m.image.Reference.String(), m.image.Desc.Digest.String(), m.pushed, m.layers})
	}
	if err := printIndexed(a.out, m.layers); err != nil {
		return err
	}
	if len(m.pushed) > 0 {
		fmt.Fprintln(a.out)
	}
	for _, name := range m.pushed {
		fmt.Fprintln(a.out, name)
	}
	return nil
}
