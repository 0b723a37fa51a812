package remote

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// Tries to change a referrers tag that others are changing as well.
	maxTagTries = 20
	// The wait before a change of a tag is looked at again.
	minSettle, maxSettle = 50 * time.Millisecond, 5 * time.Second
)

// errChanged: somebody else was first (HTTP 412).
var errChanged = errors.New("changed by somebody else")

// PushManifest stores a manifest or index under the digest or the tag of ref,
// and returns its descriptor. What it refers to must be there already. If it
// has a subject, and the registry does not confirm that it lists referrers
// itself, the referrers tag is kept (OCI distribution specification, "Pushing
// Manifests with Subject").
func (c *Client) PushManifest(ctx context.Context, ref reference.Named, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	q := asking{reference.Domain(ref), push}
	desc, err := c.pushManifest(ctx, ref, mediaType, raw)
	if err != nil {
		return ocispec.Descriptor{}, c.boundary(q.domain, "push "+ref.String(), err)
	}
	return desc, nil
}

func (c *Client) pushManifest(ctx context.Context, ref reference.Named, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	name, want, err := manifestTarget(ref)
	if err != nil {
		return none, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if want != "" {
		desc.Digest = want
		if got := want.Algorithm().FromBytes(raw); got != want {
			return none, &fault{class: ErrVerify, text: "the manifest to push has digest " + got.String()}
		}
	}
	if len(raw) > maxDocument {
		return none, &fault{class: ErrUsage, text: fmt.Sprintf("manifest of %d bytes, at most %d are pushed", len(raw), maxDocument)}
	}
	entry, subject, err := referring(desc, raw)
	if err != nil {
		return none, err
	}
	var listed bool
	err = c.attempt(ctx, asking{reference.Domain(ref), push}, newPace(c.o.Retry), func(e *endpoint, p *pace) error {
		answered, err := c.putManifest(ctx, target{e, pushing(reference.Path(ref))}, stored{name, mediaType, raw, ""}, p)
		if listed = answered.Get("OCI-Subject") != ""; listed {
			e.noReferrers.Store(false)
		}
		return err
	})
	if err == nil && subject != "" && !listed {
		c.o.Log.WithField("registry", reference.Domain(ref)).Infof("it lists no referrers itself; the tag %s does", referrersTag(subject))
		err = c.tagReferrer(ctx, ref, subject, entry)
	}
	return desc, err
}

// referring is what lists of referrers hold of a manifest, and its subject,
// empty if it has none.
func referring(desc ocispec.Descriptor, raw []byte) (ocispec.Descriptor, digest.Digest, error) {
	var doc struct {
		ArtifactType string
		Config       struct{ MediaType string }
		Annotations  map[string]string
		Subject      *ocispec.Descriptor
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return desc, "", &fault{class: ErrUsage, text: "the manifest to push", cause: err}
	}
	if doc.Subject == nil {
		return desc, "", nil
	}
	if err := doc.Subject.Digest.Validate(); err != nil {
		return desc, "", &fault{class: ErrUsage, text: "subject of the manifest to push", cause: err}
	}
	desc.ArtifactType = cmp.Or(doc.ArtifactType, doc.Config.MediaType)
	desc.Annotations = doc.Annotations
	return desc, doc.Subject.Digest, nil
}

// stored is a manifest to put under a name.
type stored struct {
	name      string // tag or digest
	mediaType string
	raw       []byte
	etag      string // of what may be replaced; empty: of anything
}

// putManifest returns the header of the answer.
func (c *Client) putManifest(ctx context.Context, t target, m stored, p *pace) (http.Header, error) {
	r := t.request(http.MethodPut, t.endpoint.url(t.grant.repo, "manifests", m.name))
	r.header.Set("Content-Type", m.mediaType)
	if m.etag != "" {
		r.header.Set("If-Match", m.etag)
	}
	r.body = &payload{size: int64(len(m.raw)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(m.raw)), nil
	}}
	a, err := c.do(ctx, r, p)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	switch {
	case a.StatusCode == http.StatusPreconditionFailed:
		return nil, errChanged
	case a.StatusCode/100 != 2:
		return nil, t.refusal(a)
	}
	if d := digest.Digest(a.Header.Get("Docker-Content-Digest")); d.Validate() == nil {
		if got := d.Algorithm().FromBytes(m.raw); got != d {
			return nil, &fault{class: ErrVerify, text: fmt.Sprintf("%s stored %s, not %s", a.url.Host, d, got)}
		}
	}
	return a.Header, nil
}

// tagReferrer adds an entry to the index that the subject's referrers tag
// points to. Most registries know no conditional requests, so that two writers
// may overwrite each other's entry. Each therefore looks again after a wait
// longer than another one can have taken from reading to writing, and repeats
// it if its entry is gone.
func (c *Client) tagReferrer(ctx context.Context, ref reference.Named, subject digest.Digest, entry ocispec.Descriptor) error {
	for range maxTagTries {
		began := time.Now()
		var there bool
		err := c.attempt(ctx, asking{reference.Domain(ref), push}, newPace(c.o.Retry), func(e *endpoint, p *pace) error {
			var err error
			there, err = c.addReferrer(ctx, document{e, pushing(reference.Path(ref)), referrersTag(subject), "", acceptNew}, entry, p)
			return err
		})
		if there {
			return nil
		}
		if err != nil && !errors.Is(err, errChanged) {
			return fmt.Errorf("pushed, but not listed by tag %s: %w", referrersTag(subject), err)
		}
		settle := min(max(4*time.Since(began), minSettle), maxSettle)
		timer := time.NewTimer(settle + rand.N(settle)) //nolint:gosec // no secret
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ended(ctx, nil)
		}
	}
	return &fault{class: ErrUnreachable, text: "pushed, but the tag " + referrersTag(subject) + " is changed by others again and again", remedy: "push again later"}
}

// addReferrer reports whether the entry is listed already; if not, it writes
// the index with it.
func (c *Client) addReferrer(ctx context.Context, d document, entry ocispec.Descriptor, p *pace) (bool, error) {
	index, etag, err := c.referrersTagged(ctx, d, p)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	if slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == entry.Digest }) {
		return true, nil
	}
	index.Versioned, index.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageIndex
	index.Manifests = append(index.Manifests, entry)
	raw, err := json.Marshal(index)
	if err != nil {
		return false, err
	}
	if len(raw) > maxDocument || len(index.Manifests) > maxReferrers {
		return false, &fault{class: ErrUsage, text: "too many referrers", remedy: "remove some from the registry"}
	}
	_, err = c.putManifest(ctx, target{d.endpoint, d.grant}, stored{d.target, index.MediaType, raw, etag}, p)
	return false, err
}
