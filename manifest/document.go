package manifest

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/jsonlist"
	"github.com/peelfs/peel/internal/schema1"
)

// MaxDocument is the size limit of a manifest, an index or a configuration,
// in bytes. Registries must take manifests of 4 MiB (distribution-spec 1.1,
// Pushing Manifests); containerd reads up to 8 MiB.
const MaxDocument = 8 << 20

const (
	maxEntries = 4096    // of an index
	maxLayers  = 512     // of a manifest
	maxLayer   = 1 << 50 // bytes; so that the sum of all layers fits in int64
	maxURLs    = 64      // of a layer that is not in its registry
)

// document is a verified index or manifest: one of the two is not nil.
type document struct {
	desc     ocispec.Descriptor // with the settled media type
	raw      []byte
	index    *ocispec.Index
	manifest *ocispec.Manifest
	artifact bool          // manifest is of no image
	v1       *schema1Image // what manifest was made of; nil if it is what was read
}

// shape has the members of all documents; lists are decoded one by one within
// limits.
type shape struct {
	SchemaVersion int                 `json:"schemaVersion"`
	MediaType     string              `json:"mediaType"`
	ArtifactType  string              `json:"artifactType"`
	Config        *ocispec.Descriptor `json:"config"`
	Manifests     json.RawMessage     `json:"manifests"`
	Layers        json.RawMessage     `json:"layers"`
	FSLayers      json.RawMessage     `json:"fsLayers"`
	History       json.RawMessage     `json:"history"`
	Signatures    json.RawMessage     `json:"signatures"`
	Subject       *ocispec.Descriptor `json:"subject"`
	Annotations   map[string]string   `json:"annotations"`
}

// parse verifies raw against d, reads it as what d and raw both say it is, and
// refuses it unless it can lead to an image or is an artifact.
func parse(d ocispec.Descriptor, raw []byte) (*document, error) {
	doc, err := read(d, raw)
	if err != nil || doc.manifest == nil || doc.v1 != nil {
		return doc, err
	}
	if err := checkConfigType(doc.manifest); err != nil {
		if t := artifactType(doc.manifest); t == IndexArtifactType || t == SOCIIndexV1 {
			return nil, err
		}
		doc.artifact = true
	}
	check := checkLayer
	if doc.artifact {
		check = checkFile
	}
	if err := checkBlobs(doc.manifest, check); err != nil {
		return nil, err
	}
	return doc, nil
}

// read verifies raw against d, and reads it as what d and raw both say it is.
func read(d ocispec.Descriptor, raw []byte) (*document, error) {
	if err := VerifyManifest(raw, d); err != nil {
		return nil, err
	}
	s, err := decode(raw)
	if err != nil {
		return nil, err
	}
	mediaType, err := settle(d.MediaType, s)
	if err != nil {
		return nil, err
	}
	if schema1.IsMediaType(mediaType) {
		d.MediaType = mediaType
		return parseSchema1(d, raw)
	}
	// Of any other document, all has to be what the digest is over.
	if err := Verify(raw, d); err != nil {
		return nil, err
	}
	d.MediaType = mediaType
	doc := &document{desc: d, raw: raw}
	switch kindOf(mediaType) {
	case kindIndex:
		doc.index, err = s.index(mediaType)
	case kindManifest:
		doc.manifest, err = s.manifest(mediaType)
	default:
		err = fmt.Errorf("%w: document of type %s", ErrUnsupported, quote(mediaType))
	}
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// MediaType is what a document whose type nobody has stated says it is, be it
// by its mediaType or by what it consists of. The caller has verified raw.
func MediaType(raw []byte) (string, error) {
	s, err := decode(raw)
	if err != nil {
		return "", err
	}
	return settle("", s)
}

func decode(raw []byte) (shape, error) {
	var s shape
	if len(raw) > MaxDocument {
		return s, fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, len(raw), MaxDocument)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return s, nil
}

// settle returns the media type of a document that somebody calls said.
func settle(said string, s shape) (string, error) {
	said = plainType(said)
	if s.SchemaVersion == 1 || present(s.FSLayers) {
		return settleSchema1(said, s)
	}
	if s.SchemaVersion != 2 {
		return "", fmt.Errorf("%w: schemaVersion %d, want 2", ErrMalformed, s.SchemaVersion)
	}
	layers, manifests := present(s.Layers), present(s.Manifests)
	switch {
	case layers && manifests:
		return "", fmt.Errorf("%w: it has both layers and manifests", ErrMalformed)
	case !isGeneric(said) && s.MediaType != "" && s.MediaType != said:
		return "", fmt.Errorf("%w: it is called %s and says that it is %s", ErrMalformed, quote(said), quote(s.MediaType))
	case schema1.IsMediaType(said) || schema1.IsMediaType(s.MediaType):
		return "", fmt.Errorf("%w: it is called %s and is of schemaVersion %d",
			ErrMalformed, quote(cmp.Or(said, s.MediaType)), s.SchemaVersion)
	case !isGeneric(said):
		return said, nil
	case s.MediaType != "":
		return s.MediaType, nil
	case manifests:
		return ocispec.MediaTypeImageIndex, nil
	case layers:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("%w: it has neither a media type nor layers nor manifests", ErrMalformed)
}

func (s shape) index(mediaType string) (*ocispec.Index, error) {
	if present(s.Layers) || s.Config != nil {
		return nil, fmt.Errorf("%w: an index with layers or config", ErrMalformed)
	}
	entries, err := jsonlist.Decode[ocispec.Descriptor](s.Manifests, maxEntries)
	if err != nil {
		return nil, fmt.Errorf("%w: manifests: %w", ErrMalformed, err)
	}
	return &ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: s.SchemaVersion},
		MediaType:    mediaType,
		ArtifactType: s.ArtifactType,
		Manifests:    entries,
		Subject:      s.Subject,
		Annotations:  s.Annotations,
	}, nil
}

func (s shape) manifest(mediaType string) (*ocispec.Manifest, error) {
	if present(s.Manifests) {
		return nil, fmt.Errorf("%w: a manifest with manifests", ErrMalformed)
	}
	if s.Config == nil {
		return nil, fmt.Errorf("%w: no config", ErrMalformed)
	}
	layers, err := jsonlist.Decode[ocispec.Descriptor](s.Layers, maxLayers)
	if err != nil {
		return nil, fmt.Errorf("%w: layers: %w", ErrMalformed, err)
	}
	return &ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: s.SchemaVersion},
		MediaType:    mediaType,
		ArtifactType: s.ArtifactType,
		Config:       *s.Config,
		Layers:       layers,
		Subject:      s.Subject,
		Annotations:  s.Annotations,
	}, nil
}

// checkBlobs refuses blobs that cannot be, and layers that check refuses.
func checkBlobs(m *ocispec.Manifest, check func(ocispec.Descriptor) error) error {
	if err := checkBlob(m.Config, MaxDocument); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	for i, l := range m.Layers {
		err := checkBlob(l, maxLayer)
		switch {
		case err != nil:
		case len(l.URLs) > maxURLs:
			err = fmt.Errorf("%w: %d urls, more than %d", ErrMalformed, len(l.URLs), maxURLs)
		default:
			err = check(l)
		}
		if err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(m.Layers), err)
		}
	}
	return nil
}

func checkBlob(d ocispec.Descriptor, limit int64) error {
	if d.Size < 0 || d.Size > limit {
		return fmt.Errorf("%w: size %d, want 0 to %d bytes", ErrMalformed, d.Size, limit)
	}
	return checkDigest(d.Digest)
}

// embedded is the content that a descriptor carries in itself (image-spec
// 1.1, descriptor.md, data); nil if it does not, or not the right one.
func embedded(d ocispec.Descriptor) []byte {
	if len(d.Data) == 0 || Verify(d.Data, d) != nil {
		return nil
	}
	return d.Data
}

func present(raw json.RawMessage) bool { return !jsonlist.IsNull(raw) }
