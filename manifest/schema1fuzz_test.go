package manifest

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

// FuzzSchema1: whatever two entries of history say, there is an error that the
// package promises, or a chain without gaps and a configuration that its
// digest proves.
func FuzzSchema1(f *testing.F) {
	a, b := long("a"), long("b")
	f.Add(`{"id":"`+b+`","parent":"`+a+`","docker_version":"1.7"}`, `{"id":"`+a+`","throwaway":true}`)
	f.Add(`{"id":"`+b+`","parent":"`+a+`","config":{"Cmd":"x"}}`, `{"id":"`+a+`","container_config":{"Cmd":["y"]}}`)
	f.Add(`{"id":"`+a+`","parent":"x","os":"windows"}`, `{"id":"`+a+`"}`)
	f.Fuzz(func(t *testing.T, newest, oldest string) {
		type member = map[string]any
		raw, err := json.Marshal(member{
			"schemaVersion": 1,
			"fsLayers":      []member{{"blobSum": digest.FromString("b")}, {"blobSum": digest.FromString("a")}},
			"history":       []member{{"v1Compatibility": newest}, {"v1Compatibility": oldest}},
		})
		if err != nil {
			t.Fatal(err)
		}
		img, err := Resolve(t.Context(), liar{mediaType: schema1.MediaType, top: raw}, parseRef(t, "test/image:x"), ocispec.Platform{})
		if err != nil {
			known(t, err)
			return
		}
		entries := img.v1.entries
		for i := range entries[1:] {
			if entries[i+1].Parent != entries[i].ID {
				t.Errorf("%s has the parent %s and lies on %s", entries[i+1].ID, entries[i+1].Parent, entries[i].ID)
			}
		}
		if _, err := LoadConfig(t.Context(), liar{}, img); err != nil {
			known(t, err)
		}
		completed(t, img)
	})
}
