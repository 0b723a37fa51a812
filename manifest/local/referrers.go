package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// referrers lists the manifests of index.json whose subject is d, and what the
// index with the tag of d's referrers lists (distribution-spec 1.1, "Referrers
// Tag Schema"). Entries that are missing or damaged are other images' trouble.
func (o *oci) referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	var found []ocispec.Descriptor
	add := func(r ocispec.Descriptor) {
		known := func(e ocispec.Descriptor) bool { return e.Digest == r.Digest }
		if !slices.ContainsFunc(found, known) && len(found) < maxImages {
			found = append(found, r)
		}
	}
	left := maxReferring
	tag := referrersTag(d)
	for _, e := range o.index {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if e.Size > maxDocument || e.Digest == d || left == 0 {
			continue
		}
		left--
		raw, err := o.load(e)
		if errors.Is(err, ErrMalformed) || errors.Is(err, ErrVerify) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.Annotations[ocispec.AnnotationRefName] == tag {
			list, err := parseIndex(raw)
			if err != nil {
				return nil, fmt.Errorf("%w: tag %s: %w", ErrMalformed, tag, err)
			}
			for _, r := range list {
				add(r)
			}
			continue
		}
		if r, ok := referring(e, raw, d); ok {
			add(r)
		}
	}
	return found, nil
}

// referrersTag is the tag under which registries without the referrers API,
// and layouts, keep what refers to d.
func referrersTag(d digest.Digest) string {
	algorithm, encoded := d.Algorithm().String(), d.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

// referring describes the manifest raw as the referrers API would, if its
// subject is d.
func referring(e ocispec.Descriptor, raw []byte, d digest.Digest) (ocispec.Descriptor, bool) {
	var m struct {
		MediaType    string              `json:"mediaType"`
		ArtifactType string              `json:"artifactType"`
		Config       *ocispec.Descriptor `json:"config"`
		Subject      *ocispec.Descriptor `json:"subject"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if json.Unmarshal(raw, &m) != nil || m.Subject == nil || m.Subject.Digest != d {
		return ocispec.Descriptor{}, false
	}
	r := ocispec.Descriptor{
		MediaType: e.MediaType, Digest: e.Digest, Size: int64(len(raw)),
		ArtifactType: m.ArtifactType, Annotations: m.Annotations,
	}
	if r.MediaType == "" {
		r.MediaType = m.MediaType
	}
	if r.ArtifactType == "" && m.Config != nil {
		r.ArtifactType = m.Config.MediaType
	}
	return r, true
}
