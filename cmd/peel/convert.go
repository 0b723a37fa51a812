package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/cache"
	"github.com/peelfs/peel/layer/convert"
	"github.com/peelfs/peel/manifest"
)

type convertOptions struct {
	*app
	format   string
	platform string
	profile  string
}

const convertHelp = `Convert an image so that every lazy reader, not only peel, can read it lazily.

DST is an image of a registry, or oci:DIR[:TAG] for an OCI image layout. An
index is converted with all its images, or with --platform only one of them is.
The same image always gives the same digests. Layers that are in the format
already stay as they are, as do attestations, which go on to speak of the
original, and layers that no registry may distribute.

  estargz        gzip with a table of contents; any tool can pull it. The table
                 is a file of the layer, so that the layers' diff IDs and
                 the image's ID change, and nothing else of its configuration.
  zstd:chunked   as podman writes it. The tars within stay as they are, byte for
                 byte, and so does the configuration with the image's ID.

The result has OCI media types, whatever the original has: Docker's have neither
annotations nor zstd.

A profile is a text file with a path per line, those needed first at the top; #
begins a comment. Their files come first in each layer, for readers that fetch
these ahead. It is for estargz: the order of zstd:chunked is that of the tar.

Each layer is read once and kept in no memory; estargz needs room for the tars
of four layers in the cache folder meanwhile.`

func (a *app) convertCommand() *cobra.Command {
	o := &convertOptions{app: a}
	cmd := &cobra.Command{
		Use:   "convert [flags] SRC DST",
		Short: "Convert an image to eStargz or zstd:chunked",
		Long:  convertHelp,
		Example: `  peel convert --format estargz alpine registry.example/alpine:lazy
  peel convert --format zstd:chunked --platform linux/arm64 alpine oci:alpine:arm64`,
		Args: takes(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "`format` of the layers: estargz or zstd:chunked")
	f.StringVar(&o.platform, "platform", "", "`os/arch[/variant]` of the one image to convert (default all)")
	f.StringVar(&o.profile, "profile", "", "`file` with the paths that are needed first (estargz)")
	return cmd
}

func (o *convertOptions) run(ctx context.Context, src, dst string) (err error) {
	j, err := o.prepare(src, dst)
	if err != nil {
		return err
	}
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	from, err := o.source(ctx, j.from, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	c := newConversion(from, j, log)
	if c.sink, err = j.to.open(from.Registries(), c.repo); err != nil {
		return err
	}
	done := o.showConversion(ctx, c.progress)
	d, err := c.run(ctx)
	done()
	if err != nil {
		return fmt.Errorf("convert %s: %w", j.from, err)
	}
	c.warnMissed()
	_, err = fmt.Fprintf(o.out, "%s@%s\n", j.to, d.Digest)
	return err
}

// convertJob is a conversion, all its words checked.
type convertJob struct {
	from     manifest.Reference
	to       destination
	platform *ocispec.Platform // nil for all
	layers   convert.Options
}

func (o *convertOptions) prepare(src, dst string) (j convertJob, err error) {
	if j.from, err = manifest.ParseReference(src); err != nil {
		return j, err
	}
	if j.to, err = parseDestination(dst); err != nil {
		return j, err
	}
	if o.format == "" {
		return j, withRemedy(usagef("no format"), "add --format %s or --format %s", convert.Estargz, convert.ZstdChunked)
	}
	if j.layers.Format, err = convert.ParseFormat(o.format); err != nil {
		return j, usagef("--format: %w", err)
	}
	if o.platform != "" {
		p, err := manifest.ParsePlatform(o.platform)
		if err != nil {
			return j, err
		}
		j.platform = &p
	}
	if o.profile != "" {
		if j.layers.Format != convert.Estargz {
			return j, withRemedy(usagef("--profile is for estargz: the order of %s is that of the tar", j.layers.Format), "see: peel convert --help")
		}
		if j.layers.Profile, err = readProfile(o.profile); err != nil {
			return j, err
		}
	}
	dir, err := o.cacheDir()
	if err != nil {
		return j, err
	}
	c, err := cache.Open(dir)
	if err != nil {
		return j, err
	}
	j.layers.Dir = filepath.Join(c.Dir(), "tmp")
	return j, nil
}

// Limits of a profile.
const (
	maxProfile     = 100_000 // paths
	maxProfileLine = 8 << 10 // bytes
)

// readProfile reads the paths that are needed first.
func readProfile(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	defer f.Close()
	var paths []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxProfileLine)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(paths) == maxProfile {
			return nil, usagef("profile %s: more than %d paths", file, maxProfile)
		}
		paths = append(paths, line)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("profile %s: %w", file, err)
	}
	return paths, nil
}

// destination is where an image is converted to: a tag of a registry, or of a
// layout.
type destination struct {
	ref reference.NamedTagged // nil for a layout
	dir string
	tag string
}

func (d destination) String() string {
	if d.ref != nil {
		return d.ref.String()
	}
	return layoutPrefix + d.dir + ":" + d.tag
}

// layoutPrefix is the transport of image layouts, as skopeo and podman have it.
const layoutPrefix = "oci:"

func parseDestination(s string) (destination, error) {
	if rest, ok := strings.CutPrefix(s, layoutPrefix); ok {
		return parseLayout(s, rest)
	}
	ref, err := manifest.ParseReference(s)
	if err != nil {
		return destination{}, err
	}
	if ref.Transport() != "" {
		return destination{}, withRemedy(usagef("peel writes no %s:", ref.Transport()), "write it as oci:DIR[:TAG], or name an image in a registry")
	}
	tagged, ok := ref.Named().(reference.NamedTagged)
	if _, pinned := ref.Digest(); pinned || !ok {
		return destination{}, withRemedy(usagef("%q has a digest, but that of the result is not known yet", s), "write it with a tag, or without")
	}
	return destination{ref: tagged, tag: tagged.Tag()}, nil
}

func parseLayout(s, rest string) (destination, error) {
	d := destination{dir: rest, tag: "latest"}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		d.dir, d.tag = rest[:i], rest[i+1:]
	}
	if d.dir == "" || !reference.TagRegexp.MatchString(d.tag) || len(reference.TagRegexp.FindString(d.tag)) != len(d.tag) {
		return d, withRemedy(usagef("%q is no place for an image", s), "write it as oci:DIR or oci:DIR:TAG")
	}
	return d, nil
}
