package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDocument bounds manifests and whole blobs, in bytes.
const maxDocument = 8 << 20

// The media types of docker's manifests, schema 2.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// accept lists what is understood, what is preferred first. Without an explicit
// list registries may answer with schema 1. There are no q parameters, as in
// docker's and containerd's requests, which are what registries are tried with.
const accept = ocispec.MediaTypeImageIndex + ", " + dockerIndex + ", " +
	ocispec.MediaTypeImageManifest + ", " + dockerManifest

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
			got, err = c.manifestFrom(ctx, document{e, pulling(reference.Path(ref)), target, want}, p)
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
		header:   http.Header{"Accept": {accept}},
	}, p)
	if err != nil {
		return fetched{}, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fetched{}, statusFault(host, d.endpoint.login(), a.Response)
	}
	raw, err := readBounded(host, a)
	if err != nil {
		return fetched{}, err
	}
	desc, err := describe(raw, a.Header, d.want)
	if err != nil {
		return fetched{}, &fault{class: ErrVerify, text: host, cause: err}
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

// describe checks a manifest against the digest wanted and the one that the
// registry declares.
func describe(raw []byte, h http.Header, want digest.Digest) (ocispec.Descriptor, error) {
	declared := digest.Digest(h.Get("Docker-Content-Digest"))
	if declared != "" && declared.Validate() != nil {
		return ocispec.Descriptor{}, fmt.Errorf("declares the malformed digest %.100q", declared)
	}
	for _, d := range []digest.Digest{want, declared} {
		if d == "" {
			continue
		}
		if got := d.Algorithm().FromBytes(raw); got != d {
			return ocispec.Descriptor{}, fmt.Errorf("manifest has digest %s, not %s", got, d)
		}
	}
	d := want
	if d == "" {
		d = digest.FromBytes(raw)
	}
	return ocispec.Descriptor{MediaType: mediaType(raw, h.Get("Content-Type")), Digest: d, Size: int64(len(raw))}, nil
}

// mediaType is the declared type without parameters; of a registry or proxy
// that declares only a general one, the document's.
func mediaType(raw []byte, declared string) string {
	declared, _, _ = strings.Cut(declared, ";")
	declared = strings.ToLower(strings.TrimSpace(declared))
	switch declared {
	case "", "application/json", "text/plain", "application/octet-stream":
		var doc struct{ MediaType string }
		if json.Unmarshal(raw, &doc) != nil {
			return ""
		}
		return doc.MediaType
	}
	return declared
}
