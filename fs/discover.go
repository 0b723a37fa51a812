package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/layer/ztoc"
	"github.com/peelfs/peel/manifest"
)

const (
	// maxAttached is how many manifests attached to an image are read, in the
	// hope that one has indexes of its layers.
	maxAttached = 4
	// maxTagRequests is how many layers' tags are asked for at a time.
	maxTagRequests = 8
	// patience is how long to look for indexes: as long as for a manifest that
	// does not come.
	patience = 30 * time.Second
)

// ask asks where indexes may be, in this order, until one place has some.
func (s *search) ask(ctx context.Context) finding {
	var f finding
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, place := range []struct {
		name string
		look func(context.Context) (claims, error)
	}{
		{"the index that was asked for", s.named},
		{"the index repository", s.stored},
		{"the image's SOCI index", s.annotated},
		{"what is attached to the image", s.attached},
	} {
		c, err := place.look(limited)
		if err != nil && ctx.Err() == nil {
			s.op.Log.WithError(err).WithField("image", s.m.Manifest.Desc.Digest).Warn("no index from " + place.name)
			f.notes = append(f.notes, fmt.Sprintf("%s: %v", place.name, err))
		}
		if len(c) > 0 {
			f.claims = c
			return f
		}
	}
	return f
}

// origin is what is told of an index: what it is, and the digest or the
// repository that it is found by.
func origin(what string, where any) string { return fmt.Sprintf("%s %s", what, where) }

// needs reports whether the image has a layer d that no table of contents
// describes.
func (s *search) needs(d digest.Digest) bool {
	return slices.ContainsFunc(s.m.Manifest.Layers, func(l ocispec.Descriptor) bool {
		_, toc := layer.TOCDigest(l)
		return l.Digest == d && !toc
	})
}

func (s *search) attachments() attachments {
	return attachmentsOf(s.op.Cache, s.m.Manifest, s.op.Log)
}

func (s *search) repo() reference.Named { return reference.TrimNamed(s.m.Manifest.Reference.Named()) }

// named reads the index that the reference names.
func (s *search) named(ctx context.Context) (claims, error) {
	n := s.m.Manifest.Named
	if n == nil {
		return nil, nil
	}
	return s.read(ctx, n.Desc, n.Raw)
}

// read reads an artifact in the image's repository.
func (s *search) read(ctx context.Context, d ocispec.Descriptor, raw []byte) (claims, error) {
	c, err := s.parse(ctx, d, raw)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", d.Digest, err)
	}
	return c, nil
}

func (s *search) parse(ctx context.Context, d ocispec.Descriptor, raw []byte) (claims, error) {
	if d.ArtifactType == manifest.IndexArtifactType {
		x, err := manifest.ParseIndexes(raw)
		if err != nil {
			return nil, err
		}
		return s.ours(x, s.repo())
	}
	x, err := ztoc.ParseIndex(raw)
	if err != nil {
		return nil, err
	}
	if err := s.isSubject(x.Subject); err != nil {
		return nil, err
	}
	s.attachments().notePrefetch(ctx, x)
	out := claims{}
	for _, l := range x.Layers {
		if s.needs(l.Digest) {
			out[l.Digest] = claim{
				Index: l.TOC, Repo: s.repo().Name(), DisableXattrs: l.DisableXattrs,
				Origin: origin(fmt.Sprintf("SOCI index v%d", x.Version), d.Digest),
			}
		}
	}
	return out, nil
}

// isSubject refuses what is attached to another image.
func (s *search) isSubject(d *ocispec.Descriptor) error {
	if d != nil && d.Digest != s.m.Manifest.Desc.Digest {
		return fmt.Errorf("%w: it is of image %s", layer.ErrMalformed, d.Digest)
	}
	return nil
}

// ours are the indexes of peel that lie in repo.
func (s *search) ours(x manifest.Indexes, repo reference.Named) (claims, error) {
	if err := s.isSubject(x.Subject); err != nil {
		return nil, err
	}
	out := claims{}
	for of, d := range x.Layers {
		if s.needs(of) {
			out[of] = claim{Index: d, Repo: repo.Name(), Origin: origin("peel index of", repo.Name())}
		}
	}
	return out, nil
}

// stored asks the index repository for the image, and if that does not know it
// for each layer.
func (s *search) stored(ctx context.Context) (claims, error) {
	if s.op.IndexRepo == nil {
		return nil, nil
	}
	c, err := s.tagged(ctx, s.m.Manifest.Desc.Digest)
	if !errdefs.IsNotFound(err) {
		return c, err
	}
	var mu sync.Mutex // guards out
	out := claims{}
	var g errgroup.Group
	g.SetLimit(maxTagRequests)
	for _, of := range s.unindexed() {
		g.Go(func() error {
			c, err := s.tagged(ctx, of)
			if errdefs.IsNotFound(err) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if one, ok := c[of]; ok {
				out[of] = one
			}
			return err
		})
	}
	err = g.Wait()
	return out, err
}

// unindexed are the layers that need an index, each once.
func (s *search) unindexed() []digest.Digest {
	var out []digest.Digest
	for _, l := range s.m.Manifest.Layers {
		if s.needs(l.Digest) && !slices.Contains(out, l.Digest) {
			out = append(out, l.Digest)
		}
	}
	return out
}

// tagged reads what the index repository has of a manifest or layer.
func (s *search) tagged(ctx context.Context, of digest.Digest) (claims, error) {
	repo := reference.TrimNamed(s.op.IndexRepo)
	ref, err := reference.WithTag(repo, manifest.IndexTag(of))
	if err != nil {
		return nil, err
	}
	d, raw, err := s.op.docs.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := manifest.Verify(raw, d); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	x, err := manifest.ParseIndexes(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if of != s.m.Manifest.Desc.Digest {
		x.Subject = nil // of the image that the layer was first indexed for
	}
	return s.ours(x, repo)
}

// annotated reads the SOCI index of version 2 that the manifest names.
func (s *search) annotated(ctx context.Context) (claims, error) {
	text := s.m.Manifest.Manifest.Annotations[ztoc.AnnotationIndexDigest]
	if text == "" {
		return nil, nil
	}
	d := ocispec.Descriptor{Digest: digest.Digest(text)}
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("annotation %s: digest %.100q: %w", ztoc.AnnotationIndexDigest, text, err)
	}
	return s.manifest(ctx, d)
}

// manifest fetches an artifact of the image's repository and reads it.
func (s *search) manifest(ctx context.Context, d ocispec.Descriptor) (claims, error) {
	ref, err := reference.WithDigest(s.repo(), d.Digest)
	if err != nil {
		return nil, err
	}
	_, raw, err := s.op.docs.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	d.Size = int64(len(raw))
	if err := manifest.Verify(raw, d); err != nil {
		return nil, err
	}
	return s.read(ctx, d, raw)
}

// attached asks what has been attached to the image: indexes of peel first,
// then those of SOCI.
func (s *search) attached(ctx context.Context) (claims, error) {
	if err := s.op.docs.ask("referrers"); err != nil {
		return nil, err
	}
	list, err := s.referrers(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	left := maxAttached
	for _, artifactType := range []string{manifest.IndexArtifactType, manifest.SOCIIndexV1} {
		for _, d := range list {
			if d.ArtifactType != artifactType || left == 0 {
				continue
			}
			left--
			c, err := s.referrer(ctx, d)
			if len(c) > 0 {
				return c, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(errs...)
}

// referrers lists what has been attached to the image; who looks for a profile
// has asked for that already.
func (s *search) referrers(ctx context.Context) ([]ocispec.Descriptor, error) {
	if p := s.op.Profile; p != nil && p.listed != nil {
		if list, asked, err := p.referrers(ctx); asked {
			return list, err
		}
	}
	list, err := s.op.Registry.Referrers(ctx, s.repo(), s.m.Manifest.Desc.Digest)
	if err == nil {
		s.attachments().noteReferrers(ctx, list)
	}
	return list, err
}

// referrer reads one of the artifacts, or the annotation that repeats what is
// in it.
func (s *search) referrer(ctx context.Context, d ocispec.Descriptor) (claims, error) {
	if x, ok := manifest.IndexesOf(d); ok {
		return s.ours(x, s.repo())
	}
	return s.manifest(ctx, d)
}
