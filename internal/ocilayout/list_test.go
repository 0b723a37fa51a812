package ocilayout

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestList(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	var put []ocispec.Descriptor
	for _, content := range []string{"1", "2"} {
		d, err := l.PutManifest(t.Context(), []byte(content), ocispec.MediaTypeImageManifest, "")
		if err != nil {
			t.Fatal(err)
		}
		put = append(put, d)
	}
	if _, err := l.PutManifest(t.Context(), []byte("2"), ocispec.MediaTypeImageManifest, "named"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, d := range put {
			if err := l.List(d); err != nil {
				t.Fatal(err)
			}
		}
	}
	if diff := cmp.Diff([]string{"named", ""}, names(index(t, dir))); diff != "" {
		t.Error(diff)
	}
}
