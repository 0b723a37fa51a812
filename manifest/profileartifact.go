package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/jsonlist"
)

// Media types of what carries a profile.
const (
	// ProfileArtifactType is that of a manifest that SharedProfile.Encode writes.
	ProfileArtifactType = "application/vnd.peel.profile.v1"
	// ProfileType is that of the blob it names, which Profile.Pack wrote.
	ProfileType = "application/vnd.peel.profile.v1+zstd"
)

// annotationProfile repeats, on the artifact, what it has: registries copy
// annotations into their lists of referrers, so that who has asked for the list
// need not fetch the manifest.
const annotationProfile = "dev.peel.profile"

// SharedProfile is a profile that is attached to an image.
type SharedProfile struct {
	Subject    *ocispec.Descriptor // the image's manifest; nil if what told of it does not say
	Entrypoint string
	Updated    time.Time
	Blob       ocispec.Descriptor
}

// profileNote is the annotation.
type profileNote struct {
	Entrypoint string        `json:"entrypoint,omitempty"`
	Updated    time.Time     `json:"updated"`
	Blob       digest.Digest `json:"blob"`
	Size       int64         `json:"size"`
}

// Encode writes an OCI image manifest of type ProfileArtifactType, as
// Indexes.Encode does.
func (s *SharedProfile) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	note, err := json.Marshal(profileNote{s.Entrypoint, s.Updated.UTC().Truncate(time.Second), s.Blob.Digest, s.Blob.Size})
	if err != nil {
		return nil, err
	}
	config := ocispec.DescriptorEmptyJSON
	config.MediaType, config.Data = ProfileArtifactType, nil
	return json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ProfileArtifactType,
		Config:       config,
		Layers:       []ocispec.Descriptor{{MediaType: ProfileType, Digest: s.Blob.Digest, Size: s.Blob.Size}},
		Subject:      s.Subject,
		Annotations:  map[string]string{annotationProfile: string(note)},
	})
}

func (s *SharedProfile) check() error {
	if err := checkBlob(s.Blob, maxPackedProfile); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if y := s.Updated.Year(); y < 1 || y > 9999 {
		return fmt.Errorf("%w: a profile of the year %d", ErrMalformed, y)
	}
	return CheckEntrypoint(s.Entrypoint)
}

// ParseSharedProfile reads a manifest of type ProfileArtifactType, which the
// caller has verified. The errors are ErrMalformed and, for a manifest of
// something else, ErrArtifact.
func ParseSharedProfile(raw []byte) (SharedProfile, error) {
	var p SharedProfile
	s, err := decode(raw)
	if err != nil {
		return p, err
	}
	mediaType, err := settle("", s)
	if err != nil {
		return p, err
	}
	if mediaType != ocispec.MediaTypeImageManifest || s.artifactType() != ProfileArtifactType {
		return p, fmt.Errorf("%w but of type %s", ErrArtifact, quote(cmp.Or(s.artifactType(), mediaType)))
	}
	p, ok := profileOf(s.Annotations)
	if !ok {
		return p, fmt.Errorf("%w: the annotation %s of a profile: %s", ErrMalformed, annotationProfile, quote(s.Annotations[annotationProfile]))
	}
	if p.Subject, err = s.subject(); err != nil {
		return p, err
	}
	layers, err := jsonlist.Decode[ocispec.Descriptor](s.Layers, maxLayers)
	if err != nil {
		return p, fmt.Errorf("%w: layers: %w", ErrMalformed, err)
	}
	if len(layers) != 1 || layers[0].MediaType != ProfileType || layers[0].Digest != p.Blob.Digest || layers[0].Size != p.Blob.Size {
		return p, fmt.Errorf("%w: the manifest of a profile does not list it", ErrMalformed)
	}
	return p, nil
}

// ProfileOf returns what a referrer's descriptor tells of the manifest it
// describes. It is false if that manifest is of no profile, or has to be read.
func ProfileOf(d ocispec.Descriptor) (SharedProfile, bool) {
	if d.ArtifactType != ProfileArtifactType {
		return SharedProfile{}, false
	}
	return profileOf(d.Annotations)
}

func profileOf(annotations map[string]string) (SharedProfile, bool) {
	var n profileNote
	text := annotations[annotationProfile]
	if text == "" || len(text) > MaxDocument || json.Unmarshal(bytes.TrimSpace([]byte(text)), &n) != nil {
		return SharedProfile{}, false
	}
	p := SharedProfile{
		Entrypoint: n.Entrypoint, Updated: n.Updated.UTC(),
		Blob: ocispec.Descriptor{MediaType: ProfileType, Digest: n.Blob, Size: n.Size},
	}
	return p, p.check() == nil
}
