package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxDepth     = 4  // indexes within indexes
	maxDocuments = 64 // read in one Resolve
)

// walk is one search from a reference down to a manifest.
type walk struct {
	fetcher  Fetcher
	ref      Reference
	match    platforms.MatchComparer
	left     int      // documents that may still be read
	offered  []string // platforms passed by
	artifact error    // the first artifact passed by
}

// top reads the document that the reference names.
func (w *walk) top(ctx context.Context) (*document, error) {
	named := w.ref.named
	want, pinned := w.ref.Digest()
	if pinned {
		var err error
		if named, err = w.ref.at(want); err != nil {
			return nil, err
		}
	}
	d, raw, err := w.fetcher.Manifest(ctx, named)
	if err != nil {
		return nil, err
	}
	// First, as the digest of a signed schema 1 manifest is not that of its bytes.
	if err := refuseSchema1(d.MediaType); err != nil {
		return nil, about(w.ref, err)
	}
	if pinned {
		d.Digest = want
	}
	d.Platform, d.Data = nil, nil
	doc, err := parse(d, raw)
	if err != nil {
		return nil, about(w.ref, err)
	}
	return doc, nil
}

// child reads the document that an entry of an index describes.
func (w *walk) child(ctx context.Context, d ocispec.Descriptor) (*document, error) {
	if w.left--; w.left < 0 {
		return nil, about(w.ref, fmt.Errorf("%w: its indexes lead to more than %d documents", ErrMalformed, maxDocuments))
	}
	if err := checkBlob(d, MaxDocument); err != nil {
		return nil, about(w.ref, fmt.Errorf("entry of the index: %w", err))
	}
	named, err := w.ref.at(d.Digest)
	if err != nil {
		return nil, about(w.ref, err)
	}
	raw := embedded(d)
	if raw == nil {
		if _, raw, err = w.fetcher.Manifest(ctx, named); err != nil {
			return nil, err
		}
	}
	doc, err := parse(d, raw)
	if err != nil {
		return nil, about(named, err)
	}
	return doc, nil
}

// pick searches an index, depth levels down, for the best image; nil if there
// is none.
func (w *walk) pick(ctx context.Context, index *document, depth int) (*document, error) {
	if depth > maxDepth {
		return nil, about(w.ref, fmt.Errorf("%w: indexes nest more than %d deep", ErrMalformed, maxDepth))
	}
	for _, d := range w.candidates(index.index) {
		doc, err := w.follow(ctx, d, depth)
		if errors.Is(err, ErrArtifact) {
			w.artifact = cmp.Or(w.artifact, err)
			continue
		}
		if doc != nil || err != nil {
			return doc, err
		}
	}
	return nil, nil
}

// follow searches behind one entry of an index depth levels down; nil if the
// image is not there.
func (w *walk) follow(ctx context.Context, d ocispec.Descriptor, depth int) (*document, error) {
	doc, err := w.child(ctx, d)
	if err != nil {
		return nil, err
	}
	if doc.index != nil {
		return w.pick(ctx, doc, depth+1)
	}
	if d.Platform != nil {
		return doc, nil
	}
	fits, err := w.fits(ctx, doc)
	if err != nil || !fits {
		return nil, err
	}
	return doc, nil
}

// candidates are the entries that may lead to the image, best first. Entries
// of unknown type are passed by (image-spec 1.1, image-index.md).
func (w *walk) candidates(index *ocispec.Index) []ocispec.Descriptor {
	var list []ocispec.Descriptor
	for _, d := range index.Manifests {
		switch {
		case kindOf(d.MediaType) == kindUnknown:
		case d.Platform == nil || w.match.Match(*d.Platform):
			list = append(list, d)
		case !isAttestation(*d.Platform):
			w.offered = append(w.offered, platformName(*d.Platform))
		}
	}
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int {
		if w.before(a.Platform, b.Platform) {
			return -1
		}
		if w.before(b.Platform, a.Platform) {
			return 1
		}
		return 0
	})
	return list
}

func (w *walk) before(a, b *ocispec.Platform) bool {
	if a == nil || b == nil {
		return a != nil
	}
	return w.match.Less(*a, *b)
}

// fits asks the configuration of an image whose entry names no platform.
func (w *walk) fits(ctx context.Context, doc *document) (bool, error) {
	c, err := readConfig(ctx, w.fetcher, w.ref, doc.manifest)
	if err != nil {
		return false, err
	}
	if isUnstated(c.Platform) || w.match.Match(c.Platform) {
		return true, nil
	}
	if !isAttestation(c.Platform) {
		w.offered = append(w.offered, platformName(c.Platform))
	}
	return false, nil
}

// nothing is the error of a search without result.
func (w *walk) nothing(p ocispec.Platform) error {
	if len(w.offered) == 0 && w.artifact != nil {
		return w.artifact
	}
	return about(w.ref, noPlatform(p, w.offered))
}

// about names the document that err is about.
func about(object fmt.Stringer, err error) error {
	return fmt.Errorf("%s: %w", object, err)
}
