package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/layer/ztoc"
	"github.com/peelfs/peel/manifest"
)

const (
	// attachedFor is how long it is believed what profiles are attached to an
	// image, or that none is.
	attachedFor = 24 * time.Hour
	// maxShared bounds the profiles attached to an image that are looked at.
	maxShared = 64
)

// hints are what was found attached to an image, of what is to be fetched
// before it is read: a document of the cache.
type hints struct {
	Image    digest.Digest                `json:"image"`
	Asked    time.Time                    `json:"asked"` // when profiles were last looked for; zero: never
	Profiles []sharedHint                 `json:"profiles,omitempty"`
	Lists    map[digest.Digest]prefetched `json:"lists,omitempty"` // SOCI's, by layer
}

// sharedHint is a profile; for each entrypoint, the latest.
type sharedHint struct {
	Entrypoint string             `json:"entrypoint,omitempty"`
	Updated    time.Time          `json:"updated"`
	Blob       ocispec.Descriptor `json:"blob"`
}

// prefetched is a list of spans of a layer.
type prefetched struct {
	List ocispec.Descriptor `json:"list"`
	TOC  digest.Digest      `json:"toc"` // that numbers the spans
}

// sound reports whether what the hints name could be fetched.
func (h *hints) sound() bool {
	for _, p := range h.Profiles {
		if p.Blob.Size < 0 || p.Blob.Digest.Validate() != nil {
			return false
		}
	}
	for _, l := range h.Lists {
		if l.List.Size < 0 || l.List.Digest.Validate() != nil {
			return false
		}
	}
	return true
}

// attachments are the hints on an image in one repository.
type attachments struct {
	docs  Docs
	log   *logrus.Entry
	repo  reference.Named
	image digest.Digest
}

func attachmentsOf(docs Docs, m *manifest.Image, log *logrus.Entry) attachments {
	return attachments{docs, log, reference.TrimNamed(m.Reference.Named()), m.Desc.Digest}
}

func (a attachments) key() digest.Digest {
	return digest.FromString("hints\n" + a.repo.Name() + "\n" + a.image.String())
}

// read returns what is known; nothing, if that is damaged.
func (a attachments) read() hints {
	data, err := a.docs.Read("profile", a.key())
	h := hints{Image: a.image}
	if err == nil {
		if err = json.Unmarshal(data, &h); err == nil && h.Image != a.image {
			err = fmt.Errorf("%w: of another image", flat.ErrCorrupt)
		}
		if err == nil && !h.sound() {
			err = fmt.Errorf("%w: descriptors without sense", flat.ErrCorrupt)
		}
	}
	if err == nil {
		return h
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		a.log.WithError(err).WithField("image", a.image).Info("looking for profiles anew")
	}
	return hints{Image: a.image}
}

// change remembers more. That it could not be is only logged: it will be asked
// for again.
func (a attachments) change(ctx context.Context, change func(h *hints)) {
	unlock, err := a.docs.Lock(ctx, a.key())
	if err == nil {
		h := a.read()
		change(&h)
		var data []byte
		if data, err = json.Marshal(h); err == nil {
			err = a.docs.Write("profile", a.key(), data)
		}
		err = errors.Join(err, unlock())
	}
	if err != nil && ctx.Err() == nil {
		a.log.WithError(err).WithField("image", a.image).Warn("the next mount looks for profiles again")
	}
}

// noteReferrers remembers which profiles are in a list of what is attached to
// an image, if the list tells.
func (a attachments) noteReferrers(ctx context.Context, list []ocispec.Descriptor) {
	if found, more := sharedProfiles(list); len(more) == 0 {
		a.note(ctx, found)
	}
}

// note remembers what profiles are attached to an image, by entrypoint the
// latest.
func (a attachments) note(ctx context.Context, found []manifest.SharedProfile) {
	var latest []sharedHint
	for _, s := range found {
		one := sharedHint{s.Entrypoint, s.Updated, s.Blob}
		i := slices.IndexFunc(latest, func(h sharedHint) bool { return h.Entrypoint == s.Entrypoint })
		switch {
		case i < 0 && len(latest) < maxShared:
			latest = append(latest, one)
		case i >= 0 && one.later(latest[i]):
			latest[i] = one
		}
	}
	a.change(ctx, func(h *hints) { h.Asked, h.Profiles = time.Now().UTC(), latest })
}

// sharedProfiles are those that a list of referrers tells of, and the manifests
// of more that have to be read.
func sharedProfiles(list []ocispec.Descriptor) (found []manifest.SharedProfile, more []ocispec.Descriptor) {
	for _, d := range list {
		if s, ok := manifest.ProfileOf(d); ok {
			found = append(found, s)
		} else if d.ArtifactType == manifest.ProfileArtifactType && len(more) < maxAttached {
			more = append(more, d)
		}
	}
	return found, more
}

// later reports whether s is to be preferred to o.
func (s sharedHint) later(o sharedHint) bool {
	return s.Updated.After(o.Updated) || s.Updated.Equal(o.Updated) && s.Blob.Digest > o.Blob.Digest
}

// notePrefetch remembers the lists of a SOCI index.
func (a attachments) notePrefetch(ctx context.Context, x *ztoc.Index) {
	lists := map[digest.Digest]prefetched{}
	for _, p := range x.Prefetch {
		if l, ok := x.Layer(p.Digest); ok && p.List.Size <= ztoc.MaxPrefetch {
			lists[p.Digest] = prefetched{p.List, l.TOC.Digest}
		}
	}
	if len(lists) > 0 {
		a.change(ctx, func(h *hints) { h.Lists = lists })
	}
}

// attachedProfile returns the profile that is attached to the image, unless it
// is what kept has already. A registry is asked once in attachedFor; meanwhile
// there is no waiting for it if kept has something to go by.
func (m *Image) attachedProfile(ctx context.Context, o *ProfileOptions, kept *KeptProfile) *manifest.Profile {
	p, err := SharedProfile(ctx, m.Manifest, o, kept)
	if err != nil && ctx.Err() == nil {
		o.Log.WithError(err).WithField("image", m.Manifest.Desc.Digest).Warn("the profile attached to the image is not used")
	}
	return p
}

// SharedProfile fetches the latest profile that is attached to an image, and
// adopts it; nil if there is none, or if kept began with it.
func SharedProfile(ctx context.Context, m *manifest.Image, o *ProfileOptions, kept *KeptProfile) (*manifest.Profile, error) {
	a := attachmentsOf(o.Cache, m, o.Log)
	h := a.read()
	if o.Pull == PullNever {
		return nil, nil //nolint:nilnil // nobody may be asked
	}
	if h.stale() {
		if err := a.ask(ctx, o.Registry, o.seen); err != nil {
			return nil, err
		}
		h = a.read()
	}
	blob, ok := h.profile(o.Entrypoint)
	if !ok || blob.Digest == kept.From {
		return nil, nil //nolint:nilnil // see above
	}
	p, _, err := adopt(ctx, m, o, blob)
	return p, err
}

// PullProfile asks for the latest profile that is attached to an image, and
// adopts it; adopted is as AdoptProfile has it. The error is of class
// errdefs.ErrNotFound if there is none.
func PullProfile(ctx context.Context, m *manifest.Image, o *ProfileOptions) (p *manifest.Profile, adopted bool, err error) {
	a := attachmentsOf(o.Cache, m, o.Log)
	if err := a.ask(ctx, o.Registry, nil); err != nil {
		return nil, false, err
	}
	blob, ok := a.read().profile(o.Entrypoint)
	if !ok {
		return nil, false, fmt.Errorf("image %s: no profile is attached to it: %w", a.image, errdefs.ErrNotFound)
	}
	return adopt(ctx, m, o, blob)
}

// ask looks at what is attached to the image.
func (a attachments) ask(ctx context.Context, r Registry, seen func([]ocispec.Descriptor, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := r.Referrers(ctx, a.repo, a.image)
	if seen != nil {
		seen(list, err)
	}
	if err != nil {
		return err
	}
	found, more := sharedProfiles(list)
	for _, d := range more {
		s, err := a.readShared(ctx, r, d)
		if err != nil {
			a.log.WithError(err).WithField("image", a.image).Warn("a profile attached to the image cannot be read")
			continue
		}
		found = append(found, s)
	}
	a.note(ctx, found)
	return ctx.Err()
}

// readShared reads a manifest that the list of referrers does not repeat.
func (a attachments) readShared(ctx context.Context, r Registry, d ocispec.Descriptor) (s manifest.SharedProfile, err error) {
	ref, err := reference.WithDigest(a.repo, d.Digest)
	if err != nil {
		return s, err
	}
	_, raw, err := r.Manifest(ctx, ref)
	if err == nil {
		err = manifest.Verify(raw, ocispec.Descriptor{Digest: d.Digest, Size: int64(len(raw))})
	}
	if err == nil {
		s, err = manifest.ParseSharedProfile(raw)
	}
	if err == nil && (s.Subject == nil || s.Subject.Digest != a.image) {
		err = fmt.Errorf("%w: it is of another image", manifest.ErrMalformed)
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return s, nil
}

// stale reports whether it is time to ask.
func (h hints) stale() bool {
	age := time.Since(h.Asked)
	return age > attachedFor || age < 0
}

func (h hints) profile(entrypoint string) (ocispec.Descriptor, bool) {
	for _, s := range h.Profiles {
		if s.Entrypoint == entrypoint {
			return s.Blob, true
		}
	}
	return ocispec.Descriptor{}, false
}

// adopt fetches the profile that d describes and keeps it.
func adopt(ctx context.Context, m *manifest.Image, o *ProfileOptions, d ocispec.Descriptor) (p *manifest.Profile, adopted bool, err error) {
	raw, err := readWhole(ctx, o.Registry.Layer(m.Reference.Named(), d), d)
	if err == nil {
		p, err = manifest.UnpackProfile(raw)
	}
	if err == nil {
		err = profileFits(m, p, o.Entrypoint)
	}
	if err != nil {
		return nil, false, fmt.Errorf("profile %s: %w", d.Digest, err)
	}
	if adopted, err = AdoptProfile(ctx, o.Cache, p, d.Digest, o.Log); err != nil {
		o.Log.WithError(err).WithField("image", p.Image).Warn("the profile attached to the image is not kept")
	}
	return p, adopted, nil
}

// readWhole returns the bytes of a small blob, which it compares with d.
func readWhole(ctx context.Context, src layer.Source, d ocispec.Descriptor) ([]byte, error) {
	r, err := src.ReadRange(ctx, 0, d.Size)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, d.Size)
	_, err = io.ReadFull(r, raw)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	return raw, manifest.Verify(raw, d)
}

// listed is what the lists of the image's SOCI index ask for, of layers that
// are read by the zTOCs of that index.
func (m *Image) listed(ctx context.Context, o *ProfileOptions) []layer.Wanted {
	w := wanting{left: profileMost}
	lists := attachmentsOf(o.Cache, m.Manifest, o.Log).read().Lists
	for i, l := range m.layers {
		d := m.Manifest.Layers[i].Digest
		p, ok := lists[d]
		if !ok || m.reader(d) != l || l.Index().Claim() != p.TOC {
			continue
		}
		raw, err := readWhole(ctx, o.Registry.Layer(m.Manifest.Reference.Named(), p.List), p.List)
		var runs []ztoc.SpanRun
		if err == nil {
			runs, err = ztoc.ParsePrefetch(raw)
		}
		if err != nil {
			if ctx.Err() == nil {
				o.Log.WithError(err).WithField("layer", d).Warn("its SOCI prefetch list is not used")
			}
			continue
		}
		n := len(l.Index().Spans)
		for _, r := range runs {
			for s := min(r.First, n); s < min(r.First+r.N, n); s++ {
				w.span(l, s)
			}
		}
	}
	return w.order
}
