package manifest

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SOCIIndexV1 is the artifact type of an index of SOCI that is attached to its
// image.
const SOCIIndexV1 = "application/vnd.amazon.soci.index.v1+json"

// Attached is a manifest with the indexes of the layers of an image, which is
// its subject. Its bytes have been verified, but what is in them has not been
// looked at.
type Attached struct {
	Desc ocispec.Descriptor // ArtifactType is IndexArtifactType or SOCIIndexV1
	Raw  []byte

	subject ocispec.Descriptor
}

// attachment reads a manifest that parse has verified and found to be of no
// image; nil if it is not of layer indexes either, or of no certain image.
func attachment(d ocispec.Descriptor, raw []byte) *Attached {
	s, err := decode(raw)
	if err != nil {
		return nil
	}
	switch d.ArtifactType = s.artifactType(); d.ArtifactType {
	case IndexArtifactType, SOCIIndexV1:
	default:
		return nil
	}
	subject, err := s.subject()
	if err != nil || subject == nil {
		return nil
	}
	if d.MediaType, err = settle(d.MediaType, s); err != nil {
		return nil
	}
	return &Attached{Desc: d, Raw: raw, subject: *subject}
}
