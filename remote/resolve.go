package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

// Fetcher fetches the objects of one repository by their descriptors.
type Fetcher struct {
	client *Client
	repo   reference.Named
}

// Resolve asks what ref names. The name is ref in full, with its tag or digest;
// the Fetcher fetches from its repository.
func (c *Client) Resolve(ctx context.Context, ref reference.Named) (name string, d ocispec.Descriptor, f *Fetcher, err error) {
	d, _, err = c.Manifest(ctx, ref)
	if err != nil {
		return "", ocispec.Descriptor{}, nil, err
	}
	return reference.TagNameOnly(ref).String(), d, c.Fetcher(ref), nil
}

// Fetcher names the repository of ref; tag and digest of ref do not matter.
func (c *Client) Fetcher(ref reference.Named) *Fetcher {
	return &Fetcher{c, reference.TrimNamed(ref)}
}

// Fetch streams an object. Its media type says whether it is a manifest or a
// blob; what is not found as the one is asked for as the other. A size of zero
// or less is not known, and asked for. The last Read fails if the bytes have
// not the digest or size of d. The reader obeys ctx until it is closed.
//
// The digest of a signed manifest of Docker schema 1 is over its payload.
func (f *Fetcher) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return f.either(ctx, d, func(d ocispec.Descriptor) (io.ReadCloser, error) {
		rc, err := f.client.Open(f.repo, d).ReadRange(ctx, 0, d.Size)
		if err != nil {
			return nil, err
		}
		return &verified{rc: rc, digester: d.Digest.Algorithm().Digester(), want: d.Digest, wrap: f.wrap(d)}, nil
	})
}

// FetchRange streams the bytes [off, off+n) of an object; an n of less than
// zero means all to its end. Part of a blob cannot be verified.
func (f *Fetcher) FetchRange(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	rc, err := f.either(ctx, d, func(d ocispec.Descriptor) (io.ReadCloser, error) {
		if n < 0 {
			n = max(0, d.Size-off)
		}
		if n == 0 && off >= 0 && off <= d.Size {
			return http.NoBody, nil
		}
		return f.client.Open(f.repo, d).ReadRange(ctx, off, n)
	})
	whole, ok := rc.(held)
	if err != nil || !ok {
		return rc, err
	}
	size := whole.Size()
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off > size || n > size-off {
		return nil, f.wrap(d)(&fault{class: ErrUsage, text: fmt.Sprintf("bytes [%d, %d+%d) of %d", off, off, n, size)})
	}
	return io.NopCloser(io.NewSectionReader(whole, off, n)), nil
}

// Size is an object's length in bytes: that of d, or if that is zero or less,
// what the registry tells.
func (f *Fetcher) Size(ctx context.Context, d ocispec.Descriptor) (int64, error) {
	if d.Size > 0 {
		return d.Size, nil
	}
	var size int64
	rc, err := f.either(ctx, d, func(d ocispec.Descriptor) (io.ReadCloser, error) {
		size = d.Size
		return http.NoBody, nil
	})
	if whole, ok := rc.(held); ok {
		size = whole.Size()
	}
	return size, err
}

// held is a whole manifest, verified.
type held struct{ *bytes.Reader }

func (held) Close() error { return nil }

// either fetches d as what its type says, or else as the other.
func (f *Fetcher) either(ctx context.Context, d ocispec.Descriptor, blob func(ocispec.Descriptor) (io.ReadCloser, error)) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, f.wrap(d)(&fault{class: ErrUsage, text: "digest", cause: err})
	}
	asManifest := func() (io.ReadCloser, error) { return f.manifest(ctx, d) }
	asBlob := func() (io.ReadCloser, error) {
		if d.Size <= 0 {
			var err error
			if d.Size, err = f.client.BlobSize(ctx, f.repo, d.Digest); err != nil {
				return nil, err
			}
		}
		return blob(d)
	}
	first, second := asBlob, asManifest
	if manifestType(d.MediaType) {
		first, second = asManifest, asBlob
	}
	rc, err := first()
	if !errors.Is(err, ErrNotFound) {
		return rc, err
	}
	rc, other := second()
	if errors.Is(other, ErrNotFound) {
		return nil, err
	}
	return rc, other
}

func (f *Fetcher) manifest(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	ref, err := reference.WithDigest(f.repo, d.Digest)
	if err != nil {
		return nil, f.wrap(d)(&fault{class: ErrUsage, text: "digest", cause: err})
	}
	got, raw, err := f.client.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	// Some registries sign manifests of schema 1 anew for each answer.
	if d.Size > 0 && got.Size != d.Size && !schema1.IsMediaType(got.MediaType) {
		return nil, f.wrap(d)(&fault{class: ErrVerify, text: fmt.Sprintf("manifest has %d bytes, not %d", got.Size, d.Size)})
	}
	return held{bytes.NewReader(raw)}, nil
}

func (f *Fetcher) wrap(d ocispec.Descriptor) func(error) error {
	return func(err error) error {
		return f.client.boundary(reference.Domain(f.repo), f.repo.Name()+"@"+d.Digest.String(), err)
	}
}

// verified fails at its end if what was read has another digest than wanted.
type verified struct {
	rc       io.ReadCloser
	digester digest.Digester
	want     digest.Digest
	wrap     func(error) error
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.rc.Read(p)
	v.digester.Hash().Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := v.digester.Digest(); got != v.want {
			return n, v.wrap(&fault{class: ErrVerify, text: "content has digest " + got.String()})
		}
	}
	return n, err
}

func (v *verified) Close() error { return v.rc.Close() }

// BlobSize is the length of a blob in bytes, as the registry tells it: of the
// answer to HEAD or, where that does not say, to a range of one byte.
func (c *Client) BlobSize(ctx context.Context, ref reference.Named, d digest.Digest) (int64, error) {
	domain, object := reference.Domain(ref), ref.Name()+"@"+d.String()
	if err := d.Validate(); err != nil {
		return 0, c.boundary(domain, object, &fault{class: ErrUsage, text: "digest", cause: err})
	}
	var size int64
	err := c.attempt(ctx, asking{domain, pull}, newPace(c.o.Retry), func(e *endpoint, p *pace) error {
		r := request{endpoint: e, grant: pulling(reference.Path(ref))}
		r.url = e.url(r.grant.repo, "blobs", d.String())
		var err error
		size, err = c.sizeFrom(ctx, r, p)
		return err
	})
	if err != nil {
		return 0, c.boundary(domain, object, err)
	}
	return size, nil
}

func (c *Client) sizeFrom(ctx context.Context, r request, p *pace) (int64, error) {
	r.method = http.MethodHead
	a, err := c.do(ctx, r, p)
	if err == nil {
		a.Body.Close() //nolint:errcheck // it has none
		if a.StatusCode == http.StatusOK && a.ContentLength >= 0 {
			return a.ContentLength, nil
		}
		if a.StatusCode == http.StatusNotFound {
			return 0, statusFault(a.url.Host, r.endpoint.login(), a.Response)
		}
	}
	// Addresses signed for GET take no HEAD.
	r.method, r.header = http.MethodGet, http.Header{"Range": {"bytes=0-0"}}
	if a, err = c.do(ctx, r, p); err != nil {
		return 0, err
	}
	defer a.Body.Close()
	switch a.StatusCode {
	case http.StatusOK:
		if a.ContentLength >= 0 {
			return a.ContentLength, nil
		}
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable: // 416: it is empty
		if r, err := parseContentRange(a.Header.Get("Content-Range")); err == nil && r.size >= 0 {
			return r.size, nil
		}
	default:
		return 0, statusFault(a.url.Host, r.endpoint.login(), a.Response)
	}
	return 0, &fault{class: ErrAnswer, text: a.url.Host + " does not tell the length of the blob"}
}
