package manifest

import (
	"bytes"
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

func TestMediaType(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, raw, want string
		err             error
	}{
		{"stated", `{"schemaVersion":2,"mediaType":"` + dockerList + `","manifests":[]}`, dockerList, nil},
		{"layers", `{"schemaVersion":2,"layers":[]}`, ocispec.MediaTypeImageManifest, nil},
		{"manifests", `{"schemaVersion":2,"manifests":[]}`, ocispec.MediaTypeImageIndex, nil},
		{"null is absent", `{"schemaVersion":2,"manifests":[],"layers":null}`, ocispec.MediaTypeImageIndex, nil},
		{"both", `{"schemaVersion":2,"manifests":[],"layers":[]}`, "", ErrMalformed},
		{"schema 1", `{"schemaVersion":1,"fsLayers":[]}`, schema1.MediaType, nil},
		{"signed schema 1", `{"schemaVersion":1,"fsLayers":[],"signatures":[{}]}`, schema1.MediaTypeSigned, nil},
		{"schema 1 called something else", `{"schemaVersion":1,"mediaType":"` + dockerList + `"}`, "", ErrMalformed},
		{"schema 1 with layers", `{"schemaVersion":1,"layers":[]}`, "", ErrMalformed},
		{"schema 2 with fsLayers", `{"schemaVersion":2,"fsLayers":[]}`, "", ErrMalformed},
		{"too large", string(bytes.Repeat([]byte(" "), MaxDocument+1)), "", ErrMalformed},
		{"nothing", "", "", ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := MediaType([]byte(tc.raw))
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
