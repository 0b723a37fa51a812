package fs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// maxNesting is how deep indexes of images may lie in each other.
const maxNesting = 4

// offline is a manifest.Fetcher and Sizer that has what a cache has.
type offline struct{ c Docs }

func (o offline) Manifest(_ context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	pinned, ok := ref.(reference.Digested)
	if !ok {
		return ocispec.Descriptor{}, nil, fmt.Errorf("%s: %w", ref, errdefs.ErrNotFound)
	}
	return o.manifest(pinned.Digest())
}

func (o offline) manifest(d digest.Digest) (ocispec.Descriptor, []byte, error) {
	out := ocispec.Descriptor{Digest: d}
	raw, err := o.read("image/manifest", d)
	if err == nil {
		out.Size = int64(len(raw))
		out.MediaType, err = manifest.MediaType(raw)
	}
	return out, raw, err
}

func (o offline) Blob(_ context.Context, _ reference.Named, d ocispec.Descriptor) ([]byte, error) {
	return o.read("image/config", d.Digest)
}

func (o offline) BlobSize(_ context.Context, _ reference.Named, d digest.Digest) (int64, error) {
	raw, err := o.c.Read("image/sizes", d)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(raw), 10, 64)
}

func (o offline) read(kind string, d digest.Digest) ([]byte, error) {
	raw, err := o.c.Read(kind, d)
	if err != nil {
		return nil, err
	}
	return raw, verify(kind, raw, ocispec.Descriptor{Digest: d, Size: int64(len(raw))})
}

// known is an image whose documents the cache has.
type known struct {
	*manifest.Image
	documents []digest.Digest // of kind image/manifest, from what was asked for to Desc
	platform  *ocispec.Platform
}

// inventory looks through a cache. It is for one goroutine.
type inventory struct {
	c       Shelf
	blobs   map[digest.Digest][]digest.Digest // keys of indexes, by the blob they are of; nil until looked for
	counted map[digest.Digest]presence        // by key of the index
}

// of returns the images that d means: itself, or those of an index that the
// cache has. What cannot be read is as good as not there.
func (in *inventory) of(ctx context.Context, d digest.Digest) ([]known, error) {
	return in.below(ctx, ocispec.Descriptor{Digest: d}, nil, map[digest.Digest]bool{})
}

// below looks at no document twice: indexes that list one another many times
// would take for ever.
func (in *inventory) below(ctx context.Context, d ocispec.Descriptor, above []digest.Digest, seen map[digest.Digest]bool) ([]known, error) {
	if err := ctx.Err(); err != nil || seen[d.Digest] {
		return nil, err
	}
	seen[d.Digest] = true
	said, raw, err := offline{in.c}.manifest(d.Digest)
	if err != nil || len(above) >= maxNesting {
		return nil, nil //nolint:nilerr // see of
	}
	above = append(slices.Clip(above), d.Digest)
	_, index, err := manifest.ReadManifest(said, raw)
	switch {
	case err != nil:
		return nil, nil //nolint:nilerr // see of
	case index == nil:
		return in.image(ctx, d, above), nil
	}
	var out []known
	for _, child := range index.Manifests {
		more, err := in.below(ctx, child, above, seen)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// image returns the image whose manifest is d.
func (in *inventory) image(ctx context.Context, d ocispec.Descriptor, above []digest.Digest) []known {
	r, err := manifest.ParseReference("local.invalid/image@" + d.Digest.String())
	if err != nil {
		return nil
	}
	img, err := manifest.Resolve(ctx, offline{in.c}, r, ocispec.Platform{})
	if err != nil {
		return nil
	}
	if img.Schema1 {
		in.name(img)
	}
	return []known{{Image: img, documents: above, platform: in.platform(ctx, d, img)}}
}

// name finds out which configuration is that of an image of Docker schema 1, if
// its layers were read: no manifest tells.
func (in *inventory) name(img *manifest.Image) {
	diffIDs := make([]digest.Digest, len(img.Layers))
	for i := range img.Layers {
		x, mapped, err := open(in.c, "index", slotOf(img, i).key, layer.Decode)
		if err != nil {
			return
		}
		diffIDs[i] = digest.Digest(strings.Clone(x.DiffID().String()))
		if mapped.Close() != nil {
			return
		}
	}
	_, _ = manifest.CompleteConfig(img, diffIDs) // if it fails, there is no configuration
}

// platform is that of an image; nil if nothing here tells.
func (in *inventory) platform(ctx context.Context, d ocispec.Descriptor, img *manifest.Image) *ocispec.Platform {
	if d.Platform != nil {
		return d.Platform
	}
	if img.Schema1 {
		c, err := manifest.LoadConfig(ctx, offline{in.c}, img)
		if err != nil {
			return nil
		}
		return &c.Platform
	}
	var p ocispec.Platform
	raw, err := offline{in.c}.read("image/config", img.Manifest.Config.Digest)
	if err != nil || json.Unmarshal(raw, &p) != nil || p.OS == "" {
		return nil
	}
	return &p
}

// measure fills in how much of an image is here.
func (in *inventory) measure(k known, info *ImageInfo) error {
	info.Manifest = k.Desc.Digest
	if k.platform != nil {
		info.Platform = platforms.FormatAll(*k.platform)
	}
	seen := map[digest.Digest]bool{}
	for i, d := range k.Layers {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		info.Size += d.Size
		keys := []digest.Digest{slotOf(k.Image, i).key}
		present, total, err := in.present(keys)
		if err == nil && total == 0 {
			// It may be read by an index that somebody has made.
			if keys, err = in.keys(d.Digest); err == nil {
				present, total, err = in.present(keys)
			}
		}
		if err != nil {
			return err
		}
		info.Present += present
		info.Total += total
	}
	return nil
}

// present returns how many bytes of a layer's address space are here, by the
// one of its indexes that has most, and how many it has.
func (in *inventory) present(keys []digest.Digest) (present, total int64, err error) {
	for _, key := range keys {
		one, ok := in.counted[key]
		if !ok {
			if one, err = in.count(key); err != nil {
				return 0, 0, err
			}
			if in.counted == nil {
				in.counted = map[digest.Digest]presence{}
			}
			in.counted[key] = one
		}
		if one.bytes >= present && one.of > 0 {
			present, total = one.bytes, one.of
		}
	}
	return present, total, nil
}

// presence is how many bytes of an address space are here.
type presence struct{ bytes, of int64 }

func (in *inventory) count(key digest.Digest) (presence, error) {
	x, mapped, err := open(in.c, "index", key, layer.Decode)
	if err != nil {
		return presence{}, nil //nolint:nilerr // gone, or of another version
	}
	p := presence{of: x.Info.AddrSize}
	if has, err := in.c.Stored(key, x.Info.AddrSize, len(x.Spans)); err == nil {
		for i := range x.Spans {
			if has(i) {
				p.bytes += x.Spans[i].Len
			}
		}
	}
	return p, mapped.Close()
}

// keys are those of all indexes of a blob.
func (in *inventory) keys(blob digest.Digest) ([]digest.Digest, error) {
	if in.blobs != nil {
		return in.blobs[blob], nil
	}
	all, err := in.c.Keys("index")
	if err != nil {
		return nil, err
	}
	in.blobs = map[digest.Digest][]digest.Digest{}
	for _, key := range all {
		x, mapped, err := open(in.c, "index", key, layer.Decode)
		if err != nil {
			continue
		}
		of := digest.Digest(strings.Clone(x.Blob().String())) // it outlives the mapping
		in.blobs[of] = append(in.blobs[of], key)
		if err := mapped.Close(); err != nil {
			return nil, err
		}
	}
	return in.blobs[blob], nil
}
