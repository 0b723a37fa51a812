package ztoc

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of SOCI.
const (
	// MediaTypeIndexV1 is the config's media type, and so the artifact type,
	// of an index that has a subject and is found as its referrer.
	MediaTypeIndexV1 = "application/vnd.amazon.soci.index.v1+json"
	// MediaTypeIndexV2 is that of an index that an image manifest names.
	MediaTypeIndexV2 = "application/vnd.amazon.soci.index.v2+json"
	// MediaTypeTOC is that of zTOCs, although it says nothing.
	MediaTypeTOC = "application/octet-stream"
	// MediaTypePrefetch is that of a list of spans to be fetched early.
	MediaTypePrefetch = "application/vnd.amazon.soci.prefetch.v1+json"
)

// Annotations of SOCI.
const (
	// Of a zTOC in an index, the first one also of a prefetch list.
	AnnotationLayerDigest    = "com.amazon.soci.image-layer-digest"
	AnnotationLayerMediaType = "com.amazon.soci.image-layer-mediaType"
	AnnotationSpanSize       = "com.amazon.soci.span-size"
	AnnotationDisableXattrs  = "com.amazon.soci.disable-xattrs"
	// Of an index.
	AnnotationBuildTool = "com.amazon.soci.build-tool-identifier"
	// Of an image manifest: its index, of version 2.
	AnnotationIndexDigest = "com.amazon.soci.index-digest"
	// Of such an index's descriptor in an OCI index: its image manifest.
	AnnotationManifestDigest = "com.amazon.soci.image-manifest-digest"
)

// EmptyConfig is the content of every index's config.
const EmptyConfig = "{}"

// Index says which layers of an image have a zTOC.
type Index struct {
	// Version is 1 or 2. Encode always writes 2.
	Version int
	// Subject is the manifest of the image that the index is of. It is nil in
	// version 2.
	Subject   *ocispec.Descriptor
	BuildTool string
	// Layers are the layers that have a zTOC: by SOCI's default, those of at
	// least 10 MiB. A layer can stand there as often as its image has it.
	Layers   []Layer
	Prefetch []Prefetch
}

// Layer is a layer that has a zTOC.
type Layer struct {
	// Digest and MediaType are those of the layer, as the image has it. The
	// media type may be missing.
	Digest    digest.Digest
	MediaType string
	TOC       ocispec.Descriptor
	// SpanSize is what the spans were cut by, in bytes; 0 if the index does
	// not tell.
	SpanSize int64
	// DisableXattrs tells that nothing in the layer has extended attributes
	// and no directory is opaque.
	DisableXattrs bool
}

// Prefetch is a layer that has a list of spans to be fetched early.
type Prefetch struct {
	Digest digest.Digest // of the layer
	List   ocispec.Descriptor
}

// ParseIndex reads a SOCI index manifest of either version. What it does not
// know in it is ignored, as SOCI does.
func ParseIndex(raw []byte) (*Index, error) {
	if len(raw) > maxIndex {
		return nil, malformed("SOCI index: %d bytes, of %d allowed", len(raw), maxIndex)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, malformed("SOCI index: %w", err)
	}
	x := &Index{Subject: m.Subject, BuildTool: m.Annotations[AnnotationBuildTool]}
	switch m.Config.MediaType {
	case MediaTypeIndexV1:
		x.Version = 1
	case MediaTypeIndexV2:
		x.Version = 2
	default:
		return nil, malformed("SOCI index: its config is %.100q", m.Config.MediaType)
	}
	if s := x.Subject; s != nil && (s.Digest.Validate() != nil || s.Size < 0) {
		return nil, malformed("SOCI index: its subject is %.100q, of %d bytes", s.Digest, s.Size)
	}
	for i, d := range m.Layers {
		if err := x.add(d); err != nil {
			return nil, malformed("SOCI index: layer %d: %w", i, err)
		}
	}
	return x, nil
}

// add takes in one of the manifest's layers.
func (x *Index) add(d ocispec.Descriptor) error {
	of := digest.Digest(d.Annotations[AnnotationLayerDigest])
	known := d.MediaType == MediaTypeTOC || d.MediaType == MediaTypePrefetch
	switch {
	case !known || of == "":
		return nil
	case of.Validate() != nil:
		return fmt.Errorf("it belongs to layer %.100q", of)
	case d.Digest.Validate() != nil:
		return fmt.Errorf("its digest is %.100q", d.Digest)
	case d.Size < 0 || d.Size > maxTOC:
		return fmt.Errorf("%d bytes, of %d allowed", d.Size, maxTOC)
	case d.MediaType == MediaTypePrefetch:
		x.Prefetch = append(x.Prefetch, Prefetch{Digest: of, List: plain(d)})
		return nil
	}
	l := Layer{
		Digest:        of,
		MediaType:     d.Annotations[AnnotationLayerMediaType],
		TOC:           plain(d),
		DisableXattrs: d.Annotations[AnnotationDisableXattrs] == "true",
	}
	if s := d.Annotations[AnnotationSpanSize]; s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || n > maxArchive {
			return fmt.Errorf("span size %.40q", s)
		}
		l.SpanSize = n
	}
	x.Layers = append(x.Layers, l)
	return nil
}

// plain is what of a descriptor names content.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// Layer finds a layer by its digest.
func (x *Index) Layer(d digest.Digest) (Layer, bool) {
	for _, l := range x.Layers {
		if l.Digest == d {
			return l, true
		}
	}
	return Layer{}, false
}

// Encode writes an index manifest of version 2, without a subject, as SOCI's
// own tools write it. Its config has the content EmptyConfig, which a registry
// must be given too. The descriptor tells the artifact type.
func (x *Index) Encode() ([]byte, ocispec.Descriptor, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{
			MediaType: MediaTypeIndexV2,
			Digest:    digest.FromString(EmptyConfig),
			Size:      int64(len(EmptyConfig)),
		},
		Annotations: map[string]string{AnnotationBuildTool: x.BuildTool},
	}
	for _, l := range x.Layers {
		d := plain(l.TOC)
		d.Annotations = map[string]string{
			AnnotationLayerDigest:    l.Digest.String(),
			AnnotationLayerMediaType: l.MediaType,
			AnnotationSpanSize:       strconv.FormatInt(l.SpanSize, 10),
		}
		if l.DisableXattrs {
			d.Annotations[AnnotationDisableXattrs] = "true"
		}
		m.Layers = append(m.Layers, d)
	}
	for _, p := range x.Prefetch {
		d := plain(p.List)
		d.Annotations = map[string]string{AnnotationLayerDigest: p.Digest.String()}
		m.Layers = append(m.Layers, d)
	}
	if len(m.Layers) == 0 {
		return nil, ocispec.Descriptor{}, malformed("SOCI index: no layer has a zTOC")
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, ocispec.Descriptor{}, malformed("SOCI index: %w", err)
	}
	if len(raw) > maxIndex {
		return nil, ocispec.Descriptor{}, malformed("SOCI index: %d bytes, of %d allowed", len(raw), maxIndex)
	}
	return raw, ocispec.Descriptor{
		MediaType:    m.MediaType,
		ArtifactType: m.Config.MediaType,
		Digest:       digest.FromBytes(raw),
		Size:         int64(len(raw)),
	}, nil
}
