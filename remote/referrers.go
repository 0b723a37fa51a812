package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// What is read of a registry's answers about one subject. Anybody who may
	// push can attach to an image; what is beyond the bounds is left out.
	maxReferrerPages = 32
	maxReferrers     = 10_000
)

// errNoAPI: the answer is not that of a referrers API.
var errNoAPI = errors.New("no referrers API")

// Referrers returns the descriptors of the manifests whose subject is d, of any
// artifact type, from the referrers API or, where that is missing, from the
// referrers tag (OCI distribution specification, "Listing Referrers"). A
// registry without the API is remembered and from then on asked for the tag
// alone. What is not there has no referrers; that is no error. The list is the
// registry's claim.
func (c *Client) Referrers(ctx context.Context, ref reference.Named, d digest.Digest) ([]ocispec.Descriptor, error) {
	domain, object := reference.Domain(ref), "referrers of "+ref.Name()+"@"+d.String()
	if err := d.Validate(); err != nil {
		return nil, c.boundary(domain, object, &fault{class: ErrUsage, text: "digest", cause: err})
	}
	var found []ocispec.Descriptor
	err := c.attempt(ctx, asking{domain, referrers}, newPace(c.o.Retry), func(e *endpoint, p *pace) error {
		var err error
		found, err = c.referrersFrom(ctx, subject{e, reference.Path(ref), d}, p)
		return err
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, c.boundary(domain, object, err)
	}
	return found, nil
}

// subject is a manifest whose referrers one host is asked for.
type subject struct {
	endpoint *endpoint
	repo     string
	digest   digest.Digest
}

// referrersTag is the tag for registries without the API (OCI distribution
// specification, "Referrers Tag Schema").
func referrersTag(d digest.Digest) string {
	algorithm, encoded := d.Algorithm().String(), d.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

func (c *Client) referrersFrom(ctx context.Context, s subject, p *pace) ([]ocispec.Descriptor, error) {
	if !s.endpoint.noReferrers.Load() {
		found, err := c.referrersListed(ctx, s, p)
		if !errors.Is(err, errNoAPI) {
			return found, err
		}
	}
	index, _, err := c.referrersTagged(ctx, document{s.endpoint, pulling(s.repo), referrersTag(s.digest), "", acceptNew}, p)
	return sound(index.Manifests), err
}

// referrersListed asks the API, page by page.
func (c *Client) referrersListed(ctx context.Context, s subject, p *pace) ([]ocispec.Descriptor, error) {
	var found []ocispec.Descriptor
	at := s.endpoint.url(s.repo, "referrers", s.digest.String())
	for range maxReferrerPages {
		a, err := c.do(ctx, request{
			endpoint: s.endpoint, grant: pulling(s.repo), url: at,
			header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}},
		}, p)
		if errors.Is(err, ErrAnswer) {
			return nil, errNoAPI // a redirect to a page for people
		}
		if err != nil {
			return nil, err
		}
		index, err := referrersPage(s.endpoint, a)
		next := nextPage(a.Header)
		if err == nil && next != "" {
			at, err = follow(a.url, a.peer, next)
		}
		a.Body.Close() //nolint:errcheck // read to the end or of no use
		if err != nil {
			return nil, err
		}
		found = append(found, sound(index.Manifests)...)
		if next == "" {
			return found, nil
		}
		if len(found) > maxReferrers {
			break
		}
	}
	c.o.Log.WithField("registry", s.endpoint.base.Host).Warnf("%s has too many referrers, some are left out", s.digest)
	return found[:min(len(found), maxReferrers)], nil
}

// referrersPage reads an answer of the API, or tells that it is none.
func referrersPage(e *endpoint, a *answer) (ocispec.Index, error) {
	switch a.StatusCode {
	case http.StatusOK:
		raw, err := readBounded(a.url.Host, a)
		if err != nil {
			return ocispec.Index{}, err
		}
		index, ok := parseIndex(raw)
		if !ok {
			e.noReferrers.Store(true)
			return ocispec.Index{}, errNoAPI
		}
		return index, nil
	case http.StatusNotFound:
		// Some registries have the API, but not for what they do not know.
		if !slices.Contains([]string{"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"}, errorCode(a.Body)) {
			e.noReferrers.Store(true)
		}
		return ocispec.Index{}, errNoAPI
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotAcceptable,
		http.StatusGone, http.StatusNotImplemented:
		return ocispec.Index{}, errNoAPI
	}
	return ocispec.Index{}, statusFault(a.url.Host, e.login(), a.Response)
}

// errorCode is the code of the first error of an answer, if it has one.
func errorCode(body io.Reader) string {
	raw, err := io.ReadAll(io.LimitReader(body, maxErrorBody))
	if err != nil {
		return ""
	}
	var doc struct{ Errors []struct{ Code string } }
	if json.Unmarshal(raw, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	return doc.Errors[0].Code
}

// parseIndex is generous with the media type, which some registries leave out.
func parseIndex(raw []byte) (ocispec.Index, bool) {
	var index ocispec.Index
	err := json.Unmarshal(raw, &index)
	ok := err == nil && (index.MediaType == ocispec.MediaTypeImageIndex || index.MediaType == "" && index.Manifests != nil)
	return index, ok
}

// referrersTagged reads the index that a referrers tag points to, and the
// ETag of it, if the registry tells one.
func (c *Client) referrersTagged(ctx context.Context, d document, p *pace) (ocispec.Index, string, error) {
	got, err := c.manifestFrom(ctx, d, p)
	if err != nil {
		return ocispec.Index{}, "", err
	}
	index, ok := parseIndex(got.raw)
	if !ok {
		return ocispec.Index{}, "", &fault{class: ErrAnswer, text: fmt.Sprintf("the tag %s on %s holds no image index", d.target, d.endpoint.base.Host)}
	}
	return index, got.etag, nil
}

// sound leaves out what cannot be fetched.
func sound(list []ocispec.Descriptor) []ocispec.Descriptor {
	list = list[:min(len(list), maxReferrers)]
	return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.Digest.Validate() != nil || d.Size < 0 })
}

// nextPage is the target of the Link header with the relation "next" (RFC 8288),
// empty if there is none.
func nextPage(h http.Header) string {
	for _, v := range h.Values("Link") {
		for v != "" {
			_, rest, ok := strings.Cut(v, "<")
			if !ok {
				break
			}
			target, rest, ok := strings.Cut(rest, ">")
			if !ok {
				break
			}
			var params string
			params, v, _ = strings.Cut(rest, "<")
			for param := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ';' || r == ',' }) {
				name, rel, _ := strings.Cut(strings.TrimSpace(param), "=")
				rel = strings.ToLower(strings.Trim(strings.TrimSpace(rel), `"`))
				if strings.EqualFold(strings.TrimSpace(name), "rel") && slices.Contains(strings.Fields(rel), "next") {
					return target
				}
			}
			if v != "" {
				v = "<" + v
			}
		}
	}
	return ""
}
