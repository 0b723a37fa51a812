package manifest

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	data := []byte("data")
	for _, tc := range []struct {
		name string
		d    ocispec.Descriptor
		want error
	}{
		{"right", ocispec.Descriptor{Digest: digest.FromBytes(data), Size: 4}, nil},
		{"right, sha512", ocispec.Descriptor{Digest: digest.SHA512.FromBytes(data), Size: 4}, nil},
		{"size", ocispec.Descriptor{Digest: digest.FromBytes(data), Size: 5}, ErrVerify},
		{"digest", ocispec.Descriptor{Digest: digest.FromString("Data"), Size: 4}, ErrVerify},
		{"class", ocispec.Descriptor{Digest: digest.FromString("Data"), Size: 4}, errdefs.ErrDataLoss},
		{"no digest", ocispec.Descriptor{Size: 4}, ErrMalformed},
		{"unknown algorithm", ocispec.Descriptor{Digest: "md5:8d777f385d3dfec8815d20f7496026dc", Size: 4}, ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := Verify(data, tc.d); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}
