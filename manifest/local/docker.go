package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/jsonlist"
)

// Files of what docker save writes (moby's image/spec, v1.2 and v1.0).
const (
	manifestFile     = "manifest.json"
	repositoriesFile = "repositories"
)

// docker is what docker save writes: manifest.json, which names configurations
// and layers, or in the form before Docker 1.10 only repositories, which names
// the topmost layers.
type docker struct {
	in     folder
	images []dockerImage

	mu   sync.Mutex // guards sums
	sums map[string]sums
	got  built // the image that was picked
}

// dockerImage is what the place says of an image.
type dockerImage struct {
	names   []string // that can be used as references
	config  string
	layers  []string                             // bottom first
	sources map[digest.Digest]ocispec.Descriptor // by diffID
	top     string                               // legacy: ID of the topmost layer
}

// built is an image whose manifest has been made.
type built struct {
	desc   ocispec.Descriptor
	raw    []byte // the manifest
	config []byte
	layers map[digest.Digest]*file // closed; find opens them again
}

func openDocker(in folder) (*docker, error) {
	d := &docker{in: in, sums: map[string]sums{}}
	raw, err := document(in, manifestFile, maxDocument)
	switch {
	case err == nil:
		d.images, err = parseManifestFile(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, manifestFile, err)
		}
		return d, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	d.images, err = legacyImages(in)
	return d, err
}

// parseManifestFile reads a manifest.json.
func parseManifestFile(raw []byte) ([]dockerImage, error) {
	type entry struct {
		Config       string
		RepoTags     json.RawMessage
		Layers       json.RawMessage
		LayerSources json.RawMessage
	}
	var whole json.RawMessage
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, err
	}
	entries, err := jsonlist.Decode[entry](whole, maxImages)
	if err != nil {
		return nil, err
	}
	var all []dockerImage
	for i, e := range entries {
		im := dockerImage{config: e.Config, sources: map[digest.Digest]ocispec.Descriptor{}}
		tags, err := jsonlist.Decode[string](e.RepoTags, maxTags)
		if err != nil {
			return nil, fmt.Errorf("image %d: RepoTags: %w", i, err)
		}
		im.names = usable(tags)
		if im.layers, err = jsonlist.Decode[string](e.Layers, maxLayers); err != nil {
			return nil, fmt.Errorf("image %d: Layers: %w", i, err)
		}
		for n, name := range im.layers { // Docker on Windows once wrote its own separators
			im.layers[n] = strings.ReplaceAll(name, `\`, "/")
		}
		err = members(e.LayerSources, maxLayers, func(diffID string, d ocispec.Descriptor) error {
			im.sources[digest.Digest(diffID)] = d
			return d.Digest.Validate()
		})
		if err != nil {
			return nil, fmt.Errorf("image %d: LayerSources: %w", i, err)
		}
		all = append(all, im)
	}
	return all, nil
}

// usable are the names that are references. An image has its number besides.
func usable(names []string) []string {
	return slices.DeleteFunc(names, func(s string) bool { return len(s) > maxReference || normal(s) == "" })
}

// normal is the full form of a name, so that alpine is
// docker.io/library/alpine:latest; "" if it is none.
func normal(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return reference.TagNameOnly(named).String()
}

// choose finds the number of the image that within names.
func (d *docker) choose(within string) (int, error) {
	var found []int
	number, byNumber := strings.CutPrefix(within, "@")
	want := normal(within)
	for i, im := range d.images {
		switch {
		case within == "", byNumber && number == strconv.Itoa(i),
			slices.ContainsFunc(im.names, func(s string) bool { return s == within || normal(s) == want }):
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(d.images) == 0:
		return 0, fmt.Errorf("%w: there is no image in it", ErrNotFound)
	case len(found) == 0:
		return 0, fmt.Errorf("%w: no image %s; there are: %s", ErrNotFound, quote(within), enumerate(d.names()))
	}
	return 0, fmt.Errorf("%w; name one of them behind the path and a colon: %s", ErrAmbiguous, enumerate(d.names()))
}

// names are what can be written behind the path, for all images.
func (d *docker) names() []string {
	var all []string
	for i, im := range d.images {
		all = append(all, im.called(i)...)
	}
	return all
}

func (im *dockerImage) called(i int) []string {
	if len(im.names) == 0 {
		return []string{"@" + strconv.Itoa(i)}
	}
	return im.names
}

// maxListed bounds how many names an error lists.
const maxListed = 24

func enumerate(names []string) string {
	if more := len(names) - maxListed; more > 0 {
		names = append(slices.Clone(names[:maxListed]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func (d *docker) entries(ctx context.Context) ([]Entry, error) {
	var all []Entry
	for i := range d.images {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := d.build(ctx, &d.images[i])
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", d.images[i].called(i)[0], err)
		}
		all = append(all, Entry{Names: d.images[i].called(i), Desc: b.desc})
	}
	return all, nil
}

func (d *docker) pick(ctx context.Context, within string) (Entry, []byte, error) {
	i, err := d.choose(within)
	if err != nil {
		return Entry{}, nil, err
	}
	b, err := d.build(ctx, &d.images[i])
	if err != nil {
		return Entry{}, nil, err
	}
	d.got = *b
	return Entry{d.images[i].called(i), b.desc}, b.raw, nil
}

// find knows the blobs of the image that was picked.
func (d *docker) find(want digest.Digest) (*file, error) {
	switch want {
	case d.got.desc.Digest:
		return memory("the manifest", d.got.raw), nil
	case digest.FromBytes(d.got.config):
		return memory("the configuration", d.got.config), nil
	}
	f, ok := d.got.layers[want]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return d.in.open(f.name)
}
