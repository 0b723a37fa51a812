package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/jsonlist"
	"github.com/peelfs/peel/internal/schema1"
)

// emptyLayer is the digest of the gzipped tar without entries that Docker gave
// every step of a build that changed no file.
const emptyLayer = digest.Digest("sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")

const emptyLayerSize = 32 // bytes

const osWindows = "windows"

// schema1Image is what a manifest of Docker schema 1 says of an image
// (distribution's manifest-v2-1.md), repeated entries removed.
type schema1Image struct {
	entries []schema1Entry  // oldest first
	blobs   []digest.Digest // of all entries, newest first
}

// schema1Entry is one step of an image's history.
type schema1Entry struct {
	v1
	raw   []byte // v1Compatibility
	blob  digest.Digest
	empty bool // no layer belongs to it
}

// v1 is what is read of a history entry, each of which was an image of its
// own when registries had no manifests.
type v1 struct {
	ID              string     `json:"id"`
	Parent          string     `json:"parent"`
	OS              string     `json:"os"`
	Created         *time.Time `json:"created"`
	Author          string     `json:"author"`
	Comment         string     `json:"comment"`
	Throwaway       bool       `json:"throwaway"`
	ContainerConfig struct {
		Cmd words `json:"Cmd"`
	} `json:"container_config"`
}

// words is a list of strings for which old Dockers wrote a string as well.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	var list []string
	if err := json.Unmarshal(b, &list); err == nil {
		*w = list
		return nil
	}
	var one string
	if err := json.Unmarshal(b, &one); err != nil {
		return errors.New("neither a string nor a list of strings")
	}
	*w = words{one}
	return nil
}

// settleSchema1 is settle for documents that look like schema 1.
func settleSchema1(said string, s shape) (string, error) {
	switch {
	case s.SchemaVersion != 1:
		return "", fmt.Errorf("%w: fsLayers in a document of schemaVersion %d", ErrMalformed, s.SchemaVersion)
	case present(s.Layers) || present(s.Manifests):
		return "", fmt.Errorf("%w: layers or manifests in a document of schemaVersion 1", ErrMalformed)
	}
	for _, t := range []string{said, s.MediaType} {
		if !isGeneric(t) && !schema1.IsMediaType(t) {
			return "", fmt.Errorf("%w: it is called %s and is of schemaVersion 1", ErrMalformed, quote(t))
		}
	}
	if present(s.Signatures) {
		return schema1.MediaTypeSigned, nil
	}
	return schema1.MediaType, nil
}

// parseSchema1 reads a manifest that verified has accepted for d, and nothing
// of raw but what its digest is over.
func parseSchema1(d ocispec.Descriptor, raw []byte) (*document, error) {
	payload, err := schema1.Payload(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	s, err := decode(payload)
	if err != nil {
		return nil, err
	}
	if _, err := settleSchema1("", s); err != nil {
		return nil, err
	}
	v, err := s.schema1()
	if err != nil {
		return nil, err
	}
	if d.Digest.Algorithm().FromBytes(payload) != d.Digest {
		d.Digest = digest.FromBytes(payload)
	}
	d.Size = int64(len(raw))
	return &document{desc: d, raw: raw, v1: v, manifest: v.manifest()}, nil
}

// schema1 reads the lists of a manifest of schema 1.
func (s shape) schema1() (*schema1Image, error) {
	layers, err := jsonlist.Decode[struct {
		BlobSum digest.Digest `json:"blobSum"`
	}](s.FSLayers, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("%w: fsLayers: %w", ErrMalformed, err)
	}
	history, err := jsonlist.Decode[struct {
		V1Compatibility string `json:"v1Compatibility"`
	}](s.History, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("%w: history: %w", ErrMalformed, err)
	}
	if len(layers) == 0 || len(layers) != len(history) {
		return nil, fmt.Errorf("%w: %d fsLayers and %d entries of history, want the same number, at least 1",
			ErrMalformed, len(layers), len(history))
	}
	v := &schema1Image{}
	for i := range layers {
		e := schema1Entry{raw: []byte(history[i].V1Compatibility), blob: layers[i].BlobSum}
		if err := e.read(); err != nil {
			return nil, fmt.Errorf("history: entry %d of %d: %w", i+1, len(history), err)
		}
		v.entries, v.blobs = append(v.entries, e), append(v.blobs, e.blob)
	}
	slices.Reverse(v.entries)
	return v, v.link()
}

// read fills an entry in that has its JSON and its blob.
func (e *schema1Entry) read() error {
	if err := checkDigest(e.blob); err != nil {
		return fmt.Errorf("blobSum: %w", err)
	}
	if err := json.Unmarshal(e.raw, &e.v1); err != nil {
		return fmt.Errorf("%w: v1Compatibility: %w", ErrMalformed, err)
	}
	if err := digest.NewDigestFromEncoded(digest.SHA256, e.ID).Validate(); err != nil {
		return fmt.Errorf("%w: the id is %s, want 64 digits of 0-9 a-f", ErrMalformed, quote(e.ID))
	}
	e.empty = e.Throwaway || e.blob == emptyLayer
	return nil
}

// link removes entries that repeat the one below them, which Docker 1.x wrote
// for images that it had received so, and checks that each has the one below
// it as parent.
func (v *schema1Image) link() error {
	base, newest := v.entries[0], v.entries[len(v.entries)-1]
	// What a Windows image is based on is installed, not distributed.
	if base.Parent != "" && newest.OS != osWindows {
		return fmt.Errorf("%w: history: the oldest layer %s has the parent %s, which is missing",
			ErrMalformed, base.ID, quote(base.Parent))
	}
	seen := map[string]bool{base.ID: true}
	linked := v.entries[:1]
	for _, e := range v.entries[1:] {
		below := linked[len(linked)-1].ID
		switch {
		case e.ID == below:
			continue
		case seen[e.ID]:
			return fmt.Errorf("%w: history: the id %s occurs again above %s", ErrMalformed, e.ID, below)
		case e.Parent != below:
			return fmt.Errorf("%w: history: the parent of %s is %s, but the layer below it is %s",
				ErrMalformed, e.ID, quote(e.Parent), below)
		}
		seen[e.ID] = true
		linked = append(linked, e)
	}
	v.entries = linked
	if n := len(v.layers()); n > maxLayers {
		return fmt.Errorf("%w: %d layers, more than %d", ErrMalformed, n, maxLayers)
	}
	return nil
}

// layers are the entries that layers belong to, oldest first.
func (v *schema1Image) layers() []schema1Entry {
	return slices.DeleteFunc(slices.Clone(v.entries), func(e schema1Entry) bool { return e.empty })
}

// manifest is the schema 2 form, in which the sizes of layers and the
// configuration are missing.
func (v *schema1Image) manifest() *ocispec.Manifest {
	m := &ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: dockerManifest}
	for _, e := range v.layers() {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: dockerLayer + ".gzip", Digest: e.blob})
	}
	return m
}

// describe adds to the blobs what is known of sizes.
func (v *schema1Image) describe(layers []ocispec.Descriptor) []ocispec.Descriptor {
	sizes := map[digest.Digest]int64{emptyLayer: emptyLayerSize}
	for _, l := range layers {
		sizes[l.Digest] = l.Size
	}
	var list []ocispec.Descriptor
	for _, b := range v.blobs {
		d := ocispec.Descriptor{MediaType: dockerLayer + ".gzip", Digest: b, Size: -1}
		if size, ok := sizes[b]; ok {
			d.Size = size
		}
		list = append(list, d)
	}
	return list
}

// history is oldest first, as configurations have it.
func (v *schema1Image) history() []history {
	var list []history
	for _, e := range v.entries {
		list = append(list, history{
			Created: e.Created, Author: e.Author, CreatedBy: strings.Join(e.ContainerConfig.Cmd, " "),
			Comment: e.Comment, EmptyLayer: e.empty,
		})
	}
	return list
}
