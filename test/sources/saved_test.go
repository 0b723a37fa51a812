//go:build linux

package sources

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

// A listed is an image of manifest.json.
type listed struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// config is that of an image of layers.
func config(t *testing.T, diffIDs ...digest.Digest) []byte {
	t.Helper()
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", diffIDs
	return document(t, c)
}

func document(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// entries are an image as docker save writes it.
func entries(t *testing.T, tag string, layers ...testkit.Layer) []testkit.Entry {
	t.Helper()
	var out []testkit.Entry
	var diffIDs []digest.Digest
	image := listed{RepoTags: []string{tag}}
	for _, l := range layers {
		name := l.DiffID.Encoded() + ".tar"
		image.Layers = append(image.Layers, name)
		diffIDs = append(diffIDs, l.DiffID)
		out = append(out, testkit.File(name, l.Blob))
	}
	c := config(t, diffIDs...)
	image.Config = digest.FromBytes(c).Encoded() + ".json"
	return append(out, testkit.File(image.Config, c), testkit.File("manifest.json", document(t, []listed{image})))
}

// save writes an image as docker save does and returns the file's name.
func save(t *testing.T, name, tag string, layers ...testkit.Layer) string {
	t.Helper()
	return archive(t, name, entries(t, tag, layers...)...)
}
