package manifest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// store is a Fetcher in memory that believes what it was told to hold: a
// document may lie below another's digest, or have a false type.
type store struct {
	tags  map[string]ocispec.Descriptor
	docs  map[digest.Digest][]byte
	calls []string // digests and tags, in order
}

func newStore() *store {
	return &store{tags: map[string]ocispec.Descriptor{}, docs: map[digest.Digest][]byte{}}
}

func (s *store) Manifest(_ context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	if r, ok := ref.(reference.Digested); ok {
		s.calls = append(s.calls, r.Digest().String())
		raw, ok := s.docs[r.Digest()]
		if !ok {
			return ocispec.Descriptor{}, nil, fmt.Errorf("%s: %w", ref, errdefs.ErrNotFound)
		}
		return ocispec.Descriptor{Digest: r.Digest(), Size: int64(len(raw))}, raw, nil
	}
	tag := ref.(reference.Tagged).Tag()
	s.calls = append(s.calls, tag)
	d, ok := s.tags[tag]
	if !ok {
		return ocispec.Descriptor{}, nil, fmt.Errorf("%s: %w", ref, errdefs.ErrNotFound)
	}
	return d, s.docs[d.Digest], nil
}

func (s *store) Blob(_ context.Context, ref reference.Named, d ocispec.Descriptor) ([]byte, error) {
	s.calls = append(s.calls, d.Digest.String())
	raw, ok := s.docs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%s@%s: %w", ref, d.Digest, errdefs.ErrNotFound)
	}
	return raw, nil
}

// put stores a document, which is JSON or a value to be encoded.
func (s *store) put(t testing.TB, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	raw, ok := v.([]byte)
	if !ok {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	s.docs[d.Digest] = raw
	return d
}

func (s *store) tag(name string, d ocispec.Descriptor) { s.tags[name] = d }

// image stores an image for platform p with layers of the types, of which
// only the digests exist.
func (s *store) image(t testing.TB, p string, layerTypes ...string) ocispec.Descriptor {
	t.Helper()
	return s.put(t, ocispec.MediaTypeImageManifest, s.imageManifest(t, p, layerTypes...))
}

func (s *store) imageManifest(t testing.TB, p string, layerTypes ...string) ocispec.Manifest {
	t.Helper()
	var c ocispec.Image
	if p != "" {
		c.Platform = platform(t, p)
	}
	c.RootFS.Type = "layers"
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers:    []ocispec.Descriptor{},
	}
	for i, mediaType := range layerTypes {
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: mediaType,
			Digest:    digest.FromString(fmt.Sprint(p, "layer", i)),
			Size:      int64(100 + i),
		})
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromString(fmt.Sprint(p, "tar", i)))
	}
	m.Config = s.put(t, ocispec.MediaTypeImageConfig, c)
	return m
}

// index stores an index with the entries.
func (s *store) index(t testing.TB, entries ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	return s.put(t, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: entries,
	})
}

// on gives an index entry its platform.
func on(t testing.TB, p string, d ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	v := ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	if p != "unknown" {
		v = platform(t, p)
	}
	d.Platform = &v
	return d
}

func platform(t testing.TB, s string) ocispec.Platform {
	t.Helper()
	p, err := ParsePlatform(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parseRef(t testing.TB, s string) Reference {
	t.Helper()
	r, err := ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// layout is a Fetcher on an OCI layout; tags are names in its index.json.
type layout string

func (l layout) Manifest(_ context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	var d ocispec.Descriptor
	switch r := ref.(type) {
	case reference.Digested:
		d.Digest = r.Digest()
	case reference.Tagged:
		raw, err := os.ReadFile(filepath.Join(string(l), "index.json"))
		if err != nil {
			return d, nil, err
		}
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return d, nil, err
		}
		for _, e := range index.Manifests {
			if e.Annotations[ocispec.AnnotationRefName] == r.Tag() {
				d = e
			}
		}
	}
	raw, err := l.read(d.Digest)
	d.Size = int64(len(raw))
	return d, raw, err
}

func (l layout) Blob(_ context.Context, _ reference.Named, d ocispec.Descriptor) ([]byte, error) {
	return l.read(d.Digest)
}

func (l layout) read(d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, errdefs.ErrNotFound
	}
	return os.ReadFile(filepath.Join(string(l), "blobs", d.Algorithm().String(), d.Encoded()))
}

// write lays the store out as an OCI layout.
func (s *store) write(t testing.TB, dir string) layout {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	for name, d := range s.tags {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, d)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"index.json": raw, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	for d, doc := range s.docs {
		files[filepath.Join("blobs", d.Algorithm().String(), d.Encoded())] = doc
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return layout(dir)
}
