package ztoc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// vectors are what other tools made; only tests named TestVectors need them.
func vectors(t *testing.T) string {
	t.Helper()
	root := filepath.Join("..", "..", "..", "shared", "vectors", "tricky")
	if _, err := os.Stat(root); err != nil {
		t.Fatalf("the test vectors are needed beside the project: %v", err)
	}
	return root
}

func readVector(t *testing.T, d digest.Digest) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(vectors(t), "blobs", d.Algorithm().String(), d.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readVectorJSON(t *testing.T, p []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(p, to); err != nil {
		t.Fatal(err)
	}
}

// vectorTag is the descriptor of a tag of the vectors.
func vectorTag(t *testing.T, tag string) ocispec.Descriptor {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(vectors(t), "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	readVectorJSON(t, p, &index)
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			return d
		}
	}
	t.Fatalf("no tag %s in the vectors", tag)
	return ocispec.Descriptor{}
}
