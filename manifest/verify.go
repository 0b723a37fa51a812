package manifest

import (
	// The algorithms that OCI registers for digests (image-spec, descriptor.md).
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

// Verify reports whether data has the size and digest that d states. The
// error is an ErrVerify with both values, or an ErrMalformed if d's digest is
// none.
func Verify(data []byte, d ocispec.Descriptor) error {
	if err := checkDigest(d.Digest); err != nil {
		return err
	}
	if int64(len(data)) != d.Size {
		return fmt.Errorf("%w: %d bytes, want %d bytes of %s", ErrVerify, len(data), d.Size, d.Digest)
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return fmt.Errorf("%w: bytes have digest %s, want %s", ErrVerify, got, d.Digest)
	}
	return nil
}

// VerifyManifest is Verify for manifests and indexes of all kinds: the digest
// of a signed manifest of Docker schema 1 is over its payload, and d's size is
// then not compared.
func VerifyManifest(raw []byte, d ocispec.Descriptor) error {
	err := Verify(raw, d)
	if !errors.Is(err, ErrVerify) || !isGeneric(plainType(d.MediaType)) && !schema1.IsMediaType(d.MediaType) {
		return err
	}
	payload, bad := schema1.Payload(raw)
	if bad != nil || len(payload) == len(raw) {
		return err
	}
	if got := d.Digest.Algorithm().FromBytes(payload); got != d.Digest {
		return fmt.Errorf("%w: the signed payload has digest %s, want %s", ErrVerify, got, d.Digest)
	}
	return nil
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: digest %s: %w", ErrMalformed, quote(string(d)), err)
	}
	return nil
}
