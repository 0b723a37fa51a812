package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/schema1"
)

// liar is a Fetcher that answers every request for a digest with the same
// document, and every request for a blob with the same blob.
type liar struct {
	mediaType       string
	top, child, cfg []byte
}

func (l liar) Manifest(_ context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	raw, d := l.top, ocispec.Descriptor{MediaType: l.mediaType}
	if _, ok := ref.(reference.Digested); ok {
		raw = l.child
	}
	d.Digest, d.Size = digest.FromBytes(raw), int64(len(raw))
	return d, raw, nil
}

func (l liar) Blob(context.Context, reference.Named, ocispec.Descriptor) ([]byte, error) {
	return l.cfg, nil
}

// BlobSize is Sizer's.
func (l liar) BlobSize(context.Context, reference.Named, digest.Digest) (int64, error) { return 1, nil }

// seed is one input of FuzzResolve. "@CHILD" and "@CONFIG" stand for the
// digest and size of the second and third document, so that the fuzzer gets
// past the first check.
type seed struct {
	name, mediaType, top, child, config string
	want                                error // of Resolve or else of LoadConfig
}

func seeds() []seed {
	const (
		config   = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + someDigest + `"]}}`
		manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","@CONFIG"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + someDigest + `","size":1}]}`
		docker   = `{"schemaVersion":2,"config":{"@CONFIG"},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"` + someDigest + `","size":1}]}`
		index    = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","@CHILD","platform":{"os":"linux","architecture":"amd64"}}]}`
		untyped  = `{"schemaVersion":2,"manifests":[{"@CHILD"}]}`
		artifact = `{"schemaVersion":2,"config":{"mediaType":"application/x-wine","@CONFIG"},"layers":[{"mediaType":"text/plain","digest":"` + someDigest + `","size":1,"annotations":{"org.opencontainers.image.title":"../x"}}]}`
		embedded = `{"schemaVersion":2,"manifests":[{"@CHILD","data":"e30="}]}`
	)
	return []seed{
		{"manifest", "", manifest, "", config, nil},
		{"Docker's manifest", dockerManifest, docker, "", config, nil},
		{"index", ocispec.MediaTypeImageIndex, index, manifest, config, nil},
		{"Docker's list", dockerList, index, manifest, config, nil},
		{"type with parameter, entry without platform", "application/json; charset=utf-8", untyped, manifest, config, nil},
		{"wrong diffIDs", "", manifest, "", "{}", ErrMalformed},
		{"embedded", "text/plain", embedded, "{}", "", ErrMalformed},
		{"schema 1", schema1.MediaType, string(oldManifest(old{id: "b", parent: "a"}, old{id: "a"})), "", "", nil},
		{"signed schema 1", "application/json", string(sign(oldManifest(old{id: "a"}))), "", "", nil},
		{"schema 1 without layers", schema1.MediaTypeSigned, `{"schemaVersion":1,"fsLayers":[]}`, "", "", ErrMalformed},
		{"artifact", "", artifact, "", "", nil},
		{"both", "", `{"schemaVersion":2,"layers":[],"manifests":[]}`, "", "", ErrMalformed},
	}
}

// lie fills in what stands for something else.
func lie(mediaType string, top, child, config []byte) liar {
	fill := func(doc, name, with []byte) []byte {
		return bytes.ReplaceAll(doc, name, fmt.Appendf(nil, `"digest":%q,"size":%d`, digest.FromBytes(with), len(with)))
	}
	child = fill(child, []byte(`"@CONFIG"`), config)
	top = fill(fill(top, []byte(`"@CONFIG"`), config), []byte(`"@CHILD"`), child)
	return liar{mediaType, top, child, config}
}

func (l liar) load(t *testing.T) (*Image, *Config, error) {
	t.Helper()
	img, err := Resolve(t.Context(), l, parseRef(t, "test/image:x"), ocispec.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		return nil, nil, err
	}
	c, err := LoadConfig(t.Context(), l, img)
	return img, c, err
}

func TestFuzzSeeds(t *testing.T) {
	t.Parallel()
	for _, s := range seeds() {
		_, _, err := lie(s.mediaType, []byte(s.top), []byte(s.child), []byte(s.config)).load(t)
		if !errors.Is(err, s.want) {
			t.Errorf("%s: got %v, want %v", s.name, err, s.want)
		}
	}
}

// FuzzResolve: no panic, and never an image with a document that does not
// match its digest.
func FuzzResolve(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s.mediaType, []byte(s.top), []byte(s.child), []byte(s.config))
	}
	f.Fuzz(func(t *testing.T, mediaType string, top, child, config []byte) {
		l := lie(mediaType, top, child, config)
		img, c, err := l.load(t)
		if err != nil {
			known(t, err)
		}
		if img == nil {
			return
		}
		body := img.Raw
		if img.Schema1 {
			body, _ = schema1.Payload(img.Raw)
		} else if img.Top.Digest != digest.FromBytes(l.top) {
			t.Errorf("Top is %v", img.Top)
		}
		if img.Top.Size != int64(len(l.top)) || img.Desc.Digest != digest.FromBytes(body) || img.Desc.Size != int64(len(img.Raw)) {
			t.Errorf("Top is %v, Desc is %v", img.Top, img.Desc)
		}
		if img.DiffIDsUnknown() {
			completed(t, img)
			return
		}
		for _, d := range append(img.Layers, img.Manifest.Config) {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Errorf("descriptor %v", d)
			}
		}
		if c != nil && (digest.FromBytes(c.Raw) != img.Manifest.Config.Digest || len(c.DiffIDs()) != len(img.Layers)) {
			t.Errorf("config %s with %d diffIDs", c.Raw, len(c.DiffIDs()))
		}
	})
}

// completed gives the layers of an image diffIDs.
func completed(t *testing.T, img *Image) {
	t.Helper()
	diffIDs := slices.Repeat([]digest.Digest{someDigest}, len(img.Layers))
	for i := range img.Layers {
		if name := img.FileName(i); len(name) > maxTitle {
			t.Errorf("a name of %d bytes", len(name))
		}
	}
	c, err := CompleteConfig(img, diffIDs)
	if err != nil {
		known(t, err)
		return
	}
	if !slices.Equal(c.DiffIDs(), diffIDs) || img.Schema1 && img.Manifest.Config.Digest != digest.FromBytes(c.Raw) {
		t.Errorf("config %s of %v", c.Raw, img.Manifest.Config)
	}
}

// known fails unless err is one of the errors that the package promises.
func known(t *testing.T, err error) {
	t.Helper()
	for _, want := range []error{ErrNoPlatform, ErrVerify, ErrMalformed, ErrUnsupported, ErrArtifact} {
		if errors.Is(err, want) {
			return
		}
	}
	t.Errorf("undocumented error %v", err)
}
