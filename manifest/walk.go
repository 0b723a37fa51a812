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
	want     ocispec.Platform
	match    platforms.MatchComparer
	left     int       // documents that may still be read
	leaves   []leaf    // found so far
	exact    bool      // the last of them is what is wanted
	offered  []string  // platforms passed by
	artifact *document // the first artifact passed by, if it is not of indexes
	indexes  error     // why the first one of indexes was passed by
	named    *Attached
}

// top reads the document that the reference names, or the subject of the
// indexes that it names.
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
	if pinned {
		d.Digest = want
	}
	d.Platform, d.Data = nil, nil
	doc, err := parse(d, raw)
	if errors.Is(err, ErrArtifact) {
		if a := attachment(d, raw); a != nil {
			w.named = a
			return w.child(ctx, a.subject)
		}
	}
	if err != nil {
		return nil, about(w.ref, err)
	}
	if pinned && doc.desc.Digest != want {
		return nil, about(w.ref, fmt.Errorf("%w: the signed payload has digest %s, want %s", ErrVerify, doc.desc.Digest, want))
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
	if err == nil && doc.v1 != nil {
		err = errSchema1()
	}
	if err != nil {
		return nil, about(named, err)
	}
	return doc, nil
}

// leaf is a manifest that the platform may be served with.
type leaf struct {
	desc     ocispec.Descriptor
	platform *ocispec.Platform // nil if neither entry nor configuration tells
	doc      *document         // nil until it is read
}

// pick searches an index, and those within it, for the best image, or the
// first artifact if there are no images.
func (w *walk) pick(ctx context.Context, index *document) (*document, error) {
	if err := w.collect(ctx, index, 1); err != nil {
		return nil, err
	}
	slices.SortStableFunc(w.leaves, func(a, b leaf) int { return w.order(a.platform, b.platform) })
	for _, l := range w.leaves {
		if l.doc != nil {
			return l.doc, nil
		}
		doc, err := w.image(ctx, l.desc)
		if doc != nil || err != nil {
			return doc, err
		}
	}
	return w.nothing()
}

// collect gathers the leaves behind an index, depth levels down, until one is
// exactly what is wanted.
func (w *walk) collect(ctx context.Context, index *document, depth int) error {
	if depth > maxDepth {
		return about(w.ref, fmt.Errorf("%w: indexes nest more than %d deep", ErrMalformed, maxDepth))
	}
	for _, d := range w.candidates(index.index) {
		if err := w.consider(ctx, d, depth); err != nil || w.exact {
			return err
		}
	}
	return nil
}

// consider gathers the leaves behind one entry of an index depth levels down.
// Manifests that another may beat are not read yet; an entry without a type
// is, as it may be an index.
func (w *walk) consider(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if d.Platform != nil && d.MediaType != "" && kindOf(d.MediaType) == kindManifest && !w.isExact(d.Platform) {
		w.leaves = append(w.leaves, leaf{desc: d, platform: d.Platform})
		return nil
	}
	doc, err := w.image(ctx, d)
	if doc == nil || err != nil {
		return err
	}
	if doc.index != nil {
		return w.collect(ctx, doc, depth+1)
	}
	l := leaf{desc: d, platform: d.Platform, doc: doc}
	if l.platform == nil {
		var fits bool
		if l.platform, fits, err = w.fits(ctx, doc); err != nil || !fits {
			return err
		}
	}
	w.leaves = append(w.leaves, l)
	w.exact = w.isExact(l.platform)
	return nil
}

// image is child, but passes artifacts by: nil for them.
func (w *walk) image(ctx context.Context, d ocispec.Descriptor) (*document, error) {
	doc, err := w.child(ctx, d)
	switch {
	case errors.Is(err, ErrArtifact):
		w.indexes = cmp.Or(w.indexes, err)
		return nil, nil
	case doc != nil && doc.artifact:
		if !isAttestation(doc.desc) {
			w.artifact = cmp.Or(w.artifact, doc)
		}
		return nil, nil
	}
	return doc, err
}

// candidates are the entries that may lead to the image, best first. Entries
// of unknown type are passed by (image-spec 1.1, image-index.md).
func (w *walk) candidates(index *ocispec.Index) []ocispec.Descriptor {
	var list []ocispec.Descriptor
	for _, d := range index.Manifests {
		switch {
		case kindOf(d.MediaType) == kindUnknown || isAttestation(d):
		case d.Platform == nil || w.match.Match(*d.Platform):
			list = append(list, d)
		default:
			w.offered = append(w.offered, platformName(*d.Platform))
		}
	}
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int { return w.order(a.Platform, b.Platform) })
	return list
}

// order is that of containerd's platform rules; what is not told comes last.
func (w *walk) order(a, b *ocispec.Platform) int {
	switch {
	case w.before(a, b):
		return -1
	case w.before(b, a):
		return 1
	}
	return 0
}

func (w *walk) before(a, b *ocispec.Platform) bool {
	if a == nil || b == nil {
		return a != nil && b == nil
	}
	return w.match.Less(*a, *b)
}

// isExact reports whether nothing can suit better than p.
func (w *walk) isExact(p *ocispec.Platform) bool {
	return p != nil && w.match.Match(*p) && !w.match.Less(w.want, *p)
}

// fits asks the configuration of an image whose entry names no platform; it
// may name none either, hence nil and true.
func (w *walk) fits(ctx context.Context, doc *document) (*ocispec.Platform, bool, error) {
	c, err := readConfig(ctx, w.fetcher, w.ref, doc.manifest)
	switch {
	case err != nil:
		return nil, false, err
	case isUnstated(c.Platform):
		return nil, true, nil
	case w.match.Match(c.Platform):
		return &c.Platform, true, nil
	case !isNowhere(c.Platform):
		w.offered = append(w.offered, platformName(c.Platform))
	}
	return nil, false, nil
}

// nothing is the result of a search that has found no image: an artifact, if
// there is nothing else.
func (w *walk) nothing() (*document, error) {
	switch {
	case len(w.offered) > 0:
	case w.artifact != nil:
		return w.artifact, nil
	case w.indexes != nil:
		return nil, w.indexes
	}
	return nil, about(w.ref, noPlatform(w.want, w.offered))
}

// about names the document that err is about.
func about(object fmt.Stringer, err error) error {
	return fmt.Errorf("%s: %w", object, err)
}
