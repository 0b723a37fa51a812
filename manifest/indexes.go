package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/jsonlist"
)

// Media types of what carries layer indexes.
const (
	// IndexArtifactType is that of a manifest that Indexes.Encode writes.
	IndexArtifactType = "application/vnd.peel.index.v1"
	// LayerIndexType is that of the blobs it lists.
	LayerIndexType = "application/vnd.peel.layer-index.v2+zstd"
)

const (
	// annotationLayer names, on a layer of the artifact, the layer that it is
	// the index of.
	annotationLayer = "dev.peel.layer.digest"
	// annotationIndexes repeats, on the artifact, all of its layers. Registries
	// copy a manifest's annotations into their lists of referrers, so that who
	// has asked for the list need not fetch the manifest.
	annotationIndexes = "dev.peel.indexes"
	// maxAnnotated is how many layers are repeated: the annotation then takes
	// 20 KiB. Who attaches more is found all the same, by one request more.
	maxAnnotated = 128
	// maxLayerIndex is the size limit of one layer's index as it travels,
	// bytes.
	maxLayerIndex = 1 << 30
	// maxTagged is how much of a digest a tag holds, as in the referrers tags
	// of the distribution specification: tags have at most 128 characters.
	maxTagged = 64
)

// Indexes says which layers have an index, and in which blob.
type Indexes struct {
	Subject *ocispec.Descriptor // the image manifest they were made for; nil if for no certain one
	Layers  map[digest.Digest]ocispec.Descriptor
}

// listed is one index in the annotation: layer, blob and the blob's size.
type listed struct {
	layer, blob digest.Digest
	size        int64
}

func (l listed) MarshalJSON() ([]byte, error) { return json.Marshal([]any{l.layer, l.blob, l.size}) }

func (l *listed) UnmarshalJSON(b []byte) error {
	parts := []any{&l.layer, &l.blob, &l.size}
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != 3 {
		return fmt.Errorf("%d members of 3", len(parts))
	}
	return nil
}

// Encode writes an OCI image manifest of type IndexArtifactType. The same
// indexes give the same bytes. The content of its config is that of
// ocispec.DescriptorEmptyJSON, which a registry must be given too; its type is
// IndexArtifactType once more, since some registries list a referrer by that.
func (x Indexes) Encode() ([]byte, error) {
	if len(x.Layers) == 0 || len(x.Layers) > maxLayers {
		return nil, fmt.Errorf("%w: indexes of %d layers, want 1 to %d", ErrMalformed, len(x.Layers), maxLayers)
	}
	config := ocispec.DescriptorEmptyJSON
	config.MediaType, config.Data = IndexArtifactType, nil
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: IndexArtifactType,
		Config:       config,
		Subject:      x.Subject,
	}
	var list []listed
	for _, of := range slices.Sorted(maps.Keys(x.Layers)) {
		l := listed{of, x.Layers[of].Digest, x.Layers[of].Size}
		if err := l.check(); err != nil {
			return nil, err
		}
		d := l.descriptor()
		d.Annotations = map[string]string{annotationLayer: of.String()}
		m.Layers = append(m.Layers, d)
		list = append(list, l)
	}
	if len(list) <= maxAnnotated {
		text, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		m.Annotations = map[string]string{annotationIndexes: string(text)}
	}
	return json.Marshal(m)
}

func (l listed) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: LayerIndexType, Digest: l.blob, Size: l.size}
}

func (l listed) check() error {
	if err := checkDigest(l.layer); err != nil {
		return fmt.Errorf("layer of an index: %w", err)
	}
	if err := checkBlob(l.descriptor(), maxLayerIndex); err != nil {
		return fmt.Errorf("index of layer %s: %w", l.layer, err)
	}
	return nil
}

// add refuses a second index of one layer: which of them to use would depend
// on the reader.
func (x *Indexes) add(l listed) error {
	if err := l.check(); err != nil {
		return err
	}
	if _, twice := x.Layers[l.layer]; twice {
		return fmt.Errorf("%w: two indexes of layer %s", ErrMalformed, l.layer)
	}
	if x.Layers == nil {
		x.Layers = map[digest.Digest]ocispec.Descriptor{}
	}
	x.Layers[l.layer] = l.descriptor()
	return nil
}

// ParseIndexes reads a manifest of type IndexArtifactType, which the caller has
// verified. Blobs of types that it does not know are passed by. The errors are
// ErrMalformed and, for a manifest of something else, ErrArtifact.
func ParseIndexes(raw []byte) (Indexes, error) {
	var x Indexes
	s, err := decode(raw)
	if err != nil {
		return x, err
	}
	mediaType, err := settle("", s)
	if err != nil {
		return x, err
	}
	if mediaType != ocispec.MediaTypeImageManifest || s.artifactType() != IndexArtifactType {
		return x, fmt.Errorf("%w but of type %s", ErrArtifact, quote(cmp.Or(s.artifactType(), mediaType)))
	}
	if x.Subject, err = s.subject(); err != nil {
		return x, err
	}
	layers, err := jsonlist.Decode[ocispec.Descriptor](s.Layers, maxLayers)
	if err != nil {
		return x, fmt.Errorf("%w: layers: %w", ErrMalformed, err)
	}
	for _, d := range layers {
		of := d.Annotations[annotationLayer]
		if d.MediaType != LayerIndexType || of == "" {
			continue
		}
		if err := x.add(listed{digest.Digest(of), d.Digest, d.Size}); err != nil {
			return x, err
		}
	}
	return x, nil
}

// IndexesOf returns what a referrer's descriptor tells of the manifest it
// describes. It is false if that manifest has to be read.
func IndexesOf(d ocispec.Descriptor) (Indexes, bool) {
	var x Indexes
	text := d.Annotations[annotationIndexes]
	if d.ArtifactType != IndexArtifactType || text == "" || len(text) > MaxDocument {
		return x, false
	}
	list, err := jsonlist.Decode[listed](bytes.TrimSpace([]byte(text)), maxLayers)
	if err != nil || len(list) == 0 {
		return x, false
	}
	for _, l := range list {
		if x.add(l) != nil {
			return Indexes{}, false
		}
	}
	return x, true
}

// IndexTag is the tag by which a repository of indexes has those of an image
// manifest, or that of a single layer.
func IndexTag(d digest.Digest) string {
	encoded := d.Encoded()
	return d.Algorithm().String() + "-" + encoded[:min(len(encoded), maxTagged)] + ".peel"
}

// artifactType is what a manifest's content is called (image-spec 1.1,
// manifest.md, "Guidelines for Artifact Usage").
func artifactType(m *ocispec.Manifest) string { return cmp.Or(m.ArtifactType, m.Config.MediaType) }

func (s shape) artifactType() string {
	if s.Config == nil {
		return s.ArtifactType
	}
	return cmp.Or(s.ArtifactType, s.Config.MediaType)
}

// subject is the manifest that this one is attached to; nil if there is none.
func (s shape) subject() (*ocispec.Descriptor, error) {
	if s.Subject == nil {
		return nil, nil //nolint:nilnil // a subject is optional
	}
	d := ocispec.Descriptor{MediaType: s.Subject.MediaType, Digest: s.Subject.Digest, Size: s.Subject.Size}
	if err := checkBlob(d, MaxDocument); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	return &d, nil
}
