package dockersave

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Archive is the tar of docker save: configurations and layers, and the
// manifest.json that says which belong together. Layers that several images
// share are there once.
type Archive struct {
	tar    *tarball
	layers map[digest.Digest]string // names of entries
	images []*archived
	top    map[string]map[string]string // name, tag, last layer: as the first Dockers had it
}

// archived is an image in manifest.json.
type archived struct {
	Config       string
	RepoTags     []string
	Layers       []string
	LayerSources map[digest.Digest]ocispec.Descriptor `json:",omitempty"`
}

// Image is what an Archive has to know of an image.
type Image struct {
	Config  []byte
	Layers  []ocispec.Descriptor
	DiffIDs []digest.Digest // parallel to Layers
	Names   []reference.NamedTagged
}

// NewArchive begins an archive.
func NewArchive(w io.Writer) *Archive {
	return &Archive{tar: newTarball(w), layers: map[digest.Digest]string{}, top: map[string]map[string]string{}}
}

// Has reports whether the layer was written.
func (a *Archive) Has(d digest.Digest) bool { return a.layers[d] != "" }

// Layer writes a layer, which r yields.
func (a *Archive) Layer(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	in := bufio.NewReaderSize(r, copyBlock)
	name := d.Digest.Encoded() + ending(in)
	if err := a.tar.blob(ctx, name, d, in); err != nil {
		return fmt.Errorf("layer %w", err)
	}
	a.layers[d.Digest] = name
	return nil
}

// Image adds an image. Layers that were not written are told of by their
// descriptors only, as is right for those that nobody may hand on.
func (a *Archive) Image(i Image) error {
	if len(i.DiffIDs) != len(i.Layers) {
		return fmt.Errorf("%d diffIDs for %d layers", len(i.DiffIDs), len(i.Layers))
	}
	m := &archived{Config: digest.FromBytes(i.Config).Encoded() + ".json"}
	if err := a.tar.document(m.Config, i.Config); err != nil {
		return err
	}
	for n, d := range i.Layers {
		name := a.layers[d.Digest]
		if name == "" {
			name = d.Digest.Encoded() + ".tar"
			if m.LayerSources == nil {
				m.LayerSources = map[digest.Digest]ocispec.Descriptor{}
			}
			m.LayerSources[i.DiffIDs[n]] = d
		}
		m.Layers = append(m.Layers, name)
	}
	if known := slices.IndexFunc(a.images, func(k *archived) bool {
		return k.Config == m.Config && slices.Equal(k.Layers, m.Layers)
	}); known >= 0 {
		m = a.images[known]
	} else {
		a.images = append(a.images, m)
	}
	for _, name := range i.Names {
		a.name(m, name, i.Layers)
	}
	return nil
}

// name gives an image a name, which docker prints without what is usual.
func (a *Archive) name(m *archived, name reference.NamedTagged, layers []ocispec.Descriptor) {
	s := reference.FamiliarString(name)
	for _, other := range a.images { // a name is that of one image
		other.RepoTags = slices.DeleteFunc(other.RepoTags, func(t string) bool { return t == s })
	}
	m.RepoTags = append(m.RepoTags, s)
	if len(layers) == 0 {
		return
	}
	tags := a.top[reference.FamiliarName(name)]
	if tags == nil {
		tags = map[string]string{}
		a.top[reference.FamiliarName(name)] = tags
	}
	tags[name.Tag()] = layers[len(layers)-1].Digest.Encoded()
}

// Close ends the archive, but closes no file.
func (a *Archive) Close() error {
	images := a.images
	if images == nil {
		images = []*archived{}
	}
	if err := a.tar.json("manifest.json", images); err != nil {
		return err
	}
	if err := a.tar.json("repositories", a.top); err != nil {
		return err
	}
	return a.tar.tar.Close()
}
