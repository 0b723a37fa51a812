package fs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/sentinel"
	"github.com/peelfs/peel/manifest"
)

// Errors of Images.
var (
	// ErrNoImage: the cache has nothing of that name.
	ErrNoImage = sentinel.New("no such image here", errdefs.ErrNotFound)
	// ErrInUse: a mount or another process uses the image.
	ErrInUse = sentinel.New("image is in use", errdefs.ErrFailedPrecondition)
)

// RefInfo is a reference that was resolved.
type RefInfo struct {
	Name     string
	Digest   digest.Digest
	Resolved time.Time
	Used     time.Time
}

// Shelf is a cache that can be looked through and cleared.
type Shelf interface {
	Docs
	Stock
	Refs() ([]RefInfo, error)
	SetRef(name string, d digest.Digest) error
	RemoveRef(name string) error
}

// Stock is what a cache has, by digest.
type Stock interface {
	// Keys are the digests of all documents of a kind.
	Keys(kind string) ([]digest.Digest, error)
	// Stored tells which spans of a layer are there: io/fs.ErrNotExist for none.
	Stored(key digest.Digest, size int64, spans int) (has func(span int) bool, err error)
	// Free removes a document, and RemoveStore the data of a layer, unless
	// somebody uses it (errdefs.ErrFailedPrecondition). They return the bytes of
	// disk that this frees, and do nothing if there is none.
	Free(kind string, key digest.Digest) (int64, error)
	RemoveStore(key digest.Digest) (int64, error)
}

// Images are those that a cache knows by name, told from disk alone.
type Images struct {
	c      Shelf
	mounts string
}

// NewImages returns the images of c, whose mounts are recorded below mounts; see
// [List].
func NewImages(c Shelf, mounts string) *Images { return &Images{c, mounts} }

// ImageInfo is what the cache knows of an image, for one platform. Manifest is
// "" and the rest zero if the documents of the image are gone.
type ImageInfo struct {
	Name     string        `json:"name"`
	Digest   digest.Digest `json:"digest"`   // of what the name means: an index or a manifest
	Manifest digest.Digest `json:"manifest"` // of the platform
	Platform string        `json:"platform"`
	Size     int64         `json:"size"`    // compressed bytes of its layers
	Present  int64         `json:"present"` // uncompressed bytes that are here
	Total    int64         `json:"total"`   // uncompressed bytes of the layers that were looked at
	Resolved time.Time     `json:"resolved"`
	Used     time.Time     `json:"used"`
}

// List returns all images, by name: one for each platform that was opened.
func (s *Images) List(ctx context.Context) ([]ImageInfo, error) {
	refs, err := s.c.Refs()
	if err != nil {
		return nil, err
	}
	out := []ImageInfo{}
	in := inventory{c: s.c}
	for _, r := range refs {
		all, err := in.of(ctx, r.Digest)
		if err != nil {
			return nil, err
		}
		bare := ImageInfo{Name: r.Name, Digest: r.Digest, Resolved: r.Resolved, Used: r.Used}
		if len(all) == 0 {
			out = append(out, bare)
		}
		for _, k := range all {
			info := bare
			if err := in.measure(k, &info); err != nil {
				return nil, err
			}
			out = append(out, info)
		}
	}
	return out, nil
}

// Get returns the image of a name, that of this machine's platform if there are
// several; ErrNoImage if there is none.
func (s *Images) Get(ctx context.Context, name string) (ImageInfo, error) {
	all, err := s.List(ctx)
	if err != nil {
		return ImageInfo{}, err
	}
	want := canonical(name)
	all = slices.DeleteFunc(all, func(i ImageInfo) bool { return i.Name != want })
	if len(all) == 0 {
		return ImageInfo{}, fmt.Errorf("%s: %w", name, ErrNoImage)
	}
	own := platforms.Only(manifest.DefaultPlatform())
	for _, i := range all {
		if p, err := platforms.Parse(i.Platform); err == nil && own.Match(p) {
			return i, nil
		}
	}
	return all[0], nil
}

// Put gives a name to the manifest or index d, which the cache has; ErrNoImage
// if it has not. What the name meant before is not removed.
func (s *Images) Put(ctx context.Context, name string, d digest.Digest) error {
	r, err := manifest.ParseReference(name)
	if err != nil {
		return err
	}
	in := inventory{c: s.c}
	all, err := in.of(ctx, d)
	if err == nil && len(all) == 0 {
		err = ErrNoImage
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d, err)
	}
	return s.c.SetRef(r.String(), d)
}

// canonical is the name by which the cache knows what people write.
func canonical(name string) string {
	if r, err := manifest.ParseReference(name); err == nil {
		return r.String()
	}
	return name
}

// shortDigest is how many digits of a digest are enough to name an image.
const shortDigest = 12

// isName reports whether what people write as name is that of the reference r.
func isName(name string, r RefInfo) bool {
	of := canonical(name)
	return r.Name == name || r.Name == of || strings.HasPrefix(r.Name, of+" schema ")
}

// isDigest reports whether what people write as name is the digest, or the
// beginning of it, of what the reference r means.
func isDigest(name string, r RefInfo) bool {
	if hex, ok := strings.CutPrefix(name, r.Digest.Algorithm().String()+":"); ok {
		name = hex
	}
	return len(name) >= shortDigest && strings.HasPrefix(r.Digest.Encoded(), name)
}
