package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

// maxDocument bounds manifests and whole blobs, in bytes.
const maxDocument = 8 << 20

// The media types of docker's manifests, schema 2.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// What is understood, what is preferred first. Without an explicit list
// registries may answer with schema 1, which is understood, but has neither
// sizes nor a configuration.
const (
	acceptNew = ocispec.MediaTypeImageIndex + ", " + dockerIndex + ", " +
		ocispec.MediaTypeImageManifest + ", " + dockerManifest
	acceptOld = schema1.MediaTypeSigned + ";q=0.5, " + schema1.MediaType + ";q=0.4"
)

// accept is the Accept header for images.
func (o Options) accept() string {
	switch o.Schema {
	case 1:
		return acceptOld
	case 2:
		return acceptNew
	}
	return acceptNew + ", " + acceptOld
}

// takes refuses a manifest of a schema that nobody asked for: registries may
// send what they have, whatever they are asked for.
func (o Options) takes(host string, d ocispec.Descriptor) error {
	old := schema1.IsMediaType(d.MediaType)
	switch {
	case o.Schema == 1 && !old:
		return &fault{class: ErrNotFound, text: host + " has no manifest of Docker schema 1 of it", remedy: "leave out --schema 1"}
	case o.Schema == 2 && old:
		return &fault{class: ErrNotFound, text: host + " has only a manifest of Docker schema 1 of it", remedy: "leave out --schema 2"}
	}
	return nil
}

// Manifest fetches what ref names: by digest if it has one, else by tag, from
// hosts that may map tags to digests. The bytes have the descriptor's digest
// and size. Its media type is the one the registry declares, or, if that says
// nothing, the document's own, or empty.
func (c *Client) Manifest(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	var got fetched
	q := asking{reference.Domain(ref), pull}
	target, want, err := manifestTarget(ref)
	if err == nil {
		if want == "" {
			q.need |= docker.HostCapabilityResolve
		}
		err = c.attempt(ctx, q, newPace(c.o.Retry), func(e *endpoint, p *pace) error {
			var err error
			got, err = c.manifestFrom(ctx, document{e, pulling(reference.Path(ref)), target, want, c.o.accept()}, p)
			if err == nil {
				err = c.o.takes(e.base.Host, got.desc)
			}
			return err
		})
	}
	if err != nil {
		return ocispec.Descriptor{}, nil, c.boundary(q.domain, ref.String(), err)
	}
	return got.desc, got.raw, nil
}

func manifestTarget(ref reference.Named) (target string, want digest.Digest, err error) {
	switch r := reference.TagNameOnly(ref).(type) {
	case reference.Digested:
		if err := r.Digest().Validate(); err != nil {
			return "", "", &fault{class: ErrUsage, text: "digest", cause: err}
		}
		return r.Digest().String(), r.Digest(), nil
	case reference.Tagged:
		return r.Tag(), "", nil
	default:
		return "", "", &fault{class: ErrUsage, text: "neither tag nor digest"}
	}
}

// document is a manifest to get from one host.
type document struct {
	endpoint *endpoint
	grant    grant
	target   string        // tag or digest
	want     digest.Digest // empty for a tag
	accept   string
}

// absent says of a document that is not there what is missing of it, as far as
// the registry tells.
func (d document) absent(f *fault) error {
	if f.class != ErrNotFound { //nolint:errorlint // it is the field itself
		return f
	}
	unknown := f.cause != nil && strings.Contains(f.cause.Error(), "NAME_UNKNOWN")
	f.cause = nil
	switch {
	case unknown:
		f.text = "no repository " + d.grant.repo + " on " + d.endpoint.base.Host
		f.remedy = "check the name; some registries say so, too, of what they do not show without a login"
	case d.accept == acceptOld:
		f.text = d.target + " " + f.text
		f.remedy = "there may be no manifest of Docker schema 1 of it: leave out --schema 1"
	case d.accept == acceptNew:
		f.text = d.target + " " + f.text
		f.remedy = "there may be only a manifest of Docker schema 1 of it: leave out --schema 2"
	case d.want == "":
		f.text = "tag " + d.target + " " + f.text
		f.remedy = "check the name and the tag; tags are listed by: peel tags " + d.endpoint.domain + "/" + d.grant.repo
	default:
		f.remedy = "check the name and the digest"
	}
	return f
}

// fetched is a manifest as one host gave it.
type fetched struct {
	raw  []byte
	desc ocispec.Descriptor
	etag string // empty if the host told none
}

func (c *Client) manifestFrom(ctx context.Context, d document, p *pace) (fetched, error) {
	host := d.endpoint.base.Host
	a, err := c.do(ctx, request{
		endpoint: d.endpoint,
		grant:    d.grant,
		url:      d.endpoint.url(d.grant.repo, "manifests", d.target),
		header:   http.Header{"Accept": {d.accept}},
	}, p)
	if err != nil {
		return fetched{}, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fetched{}, d.absent(statusFault(host, d.endpoint.login(), a.Response))
	}
	raw, err := readBounded(host, a)
	if err != nil {
		return fetched{}, err
	}
	if page(raw, a.Header) {
		return fetched{}, &fault{
			class: ErrAnswer, text: host + " sends a web page (text/html), not a manifest",
			remedy: "check the registry's name, and whether a proxy or a captive portal answers in its place",
		}
	}
	desc, err := describe(raw, a.Header, d.want)
	if err != nil {
		return fetched{}, &fault{class: ErrVerify, text: host, cause: err}
	}
	if !object(raw) {
		return fetched{}, &fault{class: ErrAnswer, text: host + " sends what is no manifest: no JSON object", remedy: "check the registry's name and port"}
	}
	if err := contradiction(raw, desc.MediaType); err != nil {
		return fetched{}, &fault{class: ErrAnswer, text: host, cause: err}
	}
	return fetched{raw, desc, a.Header.Get("ETag")}, nil
}

// readBounded reads a body of at most maxDocument bytes, all of it.
func readBounded(host string, a *answer) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(a.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, err
	case len(raw) > maxDocument:
		return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s sends a manifest of more than %d bytes", host, maxDocument)}
	}
	return raw, nil
}

// page reports whether a body is a web page, as proxies and captive portals
// send it with status 200.
func page(raw []byte, h http.Header) bool {
	declared, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(declared), "text/html") && !object(raw)
}

// object reports whether raw is a JSON object, as all manifests are.
func object(raw []byte) bool {
	var fields map[string]json.RawMessage
	return json.Unmarshal(raw, &fields) == nil && fields != nil
}

// describe checks a manifest against the digest wanted and the one that the
// registry declares.
func describe(raw []byte, h http.Header, want digest.Digest) (ocispec.Descriptor, error) {
	declared := digest.Digest(h.Get("Docker-Content-Digest"))
	if declared != "" && declared.Validate() != nil {
		return ocispec.Descriptor{}, fmt.Errorf("declares the malformed digest %.100q", declared)
	}
	said := mediaType(raw, h.Get("Content-Type"))
	signed := raw
	if schema1.IsMediaType(said) {
		var err error
		if signed, err = schema1.Payload(raw); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("manifest of Docker schema 1: %w", err)
		}
	}
	for _, d := range []digest.Digest{want, declared} {
		if d == "" {
			continue
		}
		if got := d.Algorithm().FromBytes(signed); got != d {
			return ocispec.Descriptor{}, fmt.Errorf("manifest has digest %s, not %s", got, d)
		}
	}
	d := want
	if d == "" {
		d = digest.FromBytes(signed)
	}
	return ocispec.Descriptor{MediaType: said, Digest: d, Size: int64(len(raw))}, nil
}

// general are the types by which plain web servers, proxies and old registries
// call any document.
func general(mediaType string) bool {
	return slices.Contains([]string{"", "application/json", "text/plain", "application/octet-stream"}, mediaType)
}

// mediaType is the declared type without parameters; of a registry or proxy
// that declares only a general one, the document's.
func mediaType(raw []byte, declared string) string {
	declared, _, _ = strings.Cut(declared, ";")
	declared = strings.ToLower(strings.TrimSpace(declared))
	if !general(declared) {
		return declared
	}
	var doc struct {
		SchemaVersion int
		MediaType     string
		Signatures    []json.RawMessage
	}
	switch {
	case json.Unmarshal(raw, &doc) != nil:
		return ""
	case doc.SchemaVersion == 1 && len(doc.Signatures) > 0:
		return schema1.MediaTypeSigned
	case doc.SchemaVersion == 1:
		return schema1.MediaType
	}
	return doc.MediaType
}

// contradiction is the error of a manifest that calls itself something else
// than the registry does, as either may be a lie (OCI distribution
// specification, "Pulling manifests").
func contradiction(raw []byte, said string) error {
	var doc struct{ MediaType string }
	if json.Unmarshal(raw, &doc) != nil || doc.MediaType == "" || doc.MediaType == said || !manifestType(said) {
		return nil
	}
	return fmt.Errorf("calls it %s, but it says that it is %.100q", said, doc.MediaType)
}

// manifestType reports whether objects of the type are manifests, rather than
// blobs.
func manifestType(t string) bool {
	switch t {
	case ocispec.MediaTypeImageIndex, dockerIndex, ocispec.MediaTypeImageManifest, dockerManifest:
		return true
	}
	return schema1.IsMediaType(t)
}
