package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxTrees bounds for how many combinations of a layer's indexes trees are
// looked for.
const maxTrees = 4096

// Removed is what Remove has done.
type Removed struct {
	Names []string `json:"names"` // that mean nothing any longer
	Freed int64    `json:"freed"` // bytes of disk
}

// Remove forgets the image of a name, or of a digest all names of it, and
// deletes what no other name needs. It is ErrNoImage if there is none, and
// ErrInUse if a mount shows it that no other name is left for; nothing is
// removed then. If another process uses one of its layers, the rest goes, and
// the error is ErrInUse.
func (s *Images) Remove(ctx context.Context, name string) (Removed, error) {
	r := &removal{images: s, in: inventory{c: s.c}}
	out, err := r.run(ctx, name)
	if err != nil {
		return out, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// removal is one Remove.
type removal struct {
	images *Images
	in     inventory

	victims []RefInfo
	gone    []known                // images that the victims mean
	keep    map[digest.Digest]bool // documents and blobs that other names need
	out     Removed
}

func (r *removal) run(ctx context.Context, name string) (Removed, error) {
	if err := r.survey(ctx, name); err != nil {
		return r.out, err
	}
	if err := r.mounted(ctx); err != nil {
		return r.out, err
	}
	busy := 0
	for _, k := range r.gone {
		n, err := r.layers(k)
		if err != nil {
			return r.out, err
		}
		busy += n
	}
	if busy > 0 {
		return r.out, fmt.Errorf("%w: %d of its layers are read or fetched at the moment", ErrInUse, busy)
	}
	for _, v := range r.victims {
		if err := r.images.c.RemoveRef(v.Name); err != nil {
			return r.out, err
		}
		r.out.Names = append(r.out.Names, v.Name)
	}
	return r.out, r.documents()
}

// survey finds out what is to go and what is to stay.
func (r *removal) survey(ctx context.Context, name string) error {
	refs, err := r.images.c.Refs()
	if err != nil {
		return err
	}
	if r.victims, err = choose(name, refs); err != nil {
		return err
	}
	r.keep = map[digest.Digest]bool{}
	for _, ref := range refs {
		all, err := r.in.of(ctx, ref.Digest)
		if err != nil {
			return err
		}
		if slices.Contains(r.victims, ref) {
			r.gone = append(r.gone, all...)
			continue
		}
		for _, k := range all {
			for _, d := range k.documents {
				r.keep[d] = true
			}
			r.keep[k.Manifest.Config.Digest] = true
			for _, d := range k.Layers {
				r.keep[d.Digest] = true
			}
		}
	}
	return nil
}

// choose returns the references that name means: that of the name, or else
// those of the digest.
func choose(name string, refs []RefInfo) ([]RefInfo, error) {
	var out []RefInfo
	for _, is := range []func(string, RefInfo) bool{isName, isDigest} {
		for _, r := range refs {
			if is(name, r) {
				out = append(out, r)
			}
		}
		if len(out) > 0 {
			break
		}
	}
	if len(out) == 0 {
		return nil, ErrNoImage
	}
	if other := func(r RefInfo) bool { return r.Digest != out[0].Digest }; !isName(name, out[0]) && slices.ContainsFunc(out, other) {
		return nil, fmt.Errorf("%w: the digests of several images begin so", errdefs.ErrInvalidArgument)
	}
	return out, nil
}

// mounted is an error if a mount shows what would go.
func (r *removal) mounted(ctx context.Context) error {
	mounts, err := List(ctx, r.images.mounts)
	if err != nil {
		return err
	}
	var on []string
	for _, m := range mounts {
		d := digest.Digest(m.Digest)
		shows := func(k known) bool { return k.Desc.Digest == d && !r.keep[d] }
		if m.State == StateServing && slices.ContainsFunc(r.gone, shows) {
			on = append(on, m.Mountpoint)
		}
	}
	if len(on) > 0 {
		return fmt.Errorf("%w: it is mounted on %s", ErrInUse, strings.Join(on, ", "))
	}
	return nil
}

// layers removes the layers of an image, and returns how many are in use.
func (r *removal) layers(k known) (busy int, err error) {
	for i, d := range k.Layers {
		if r.keep[d.Digest] {
			continue
		}
		keys, err := r.slots(k, i)
		if err != nil {
			return busy, err
		}
		for _, key := range keys {
			freed, err := r.images.c.RemoveStore(key)
			switch {
			case errdefs.IsFailedPrecondition(err):
				busy++
				continue
			case err != nil:
				return busy, err
			}
			r.out.Freed += freed
		}
	}
	return busy, nil
}

// slots are where the cache may have layer i of an image.
func (r *removal) slots(k known, i int) ([]digest.Digest, error) {
	blob := k.Layers[i].Digest
	keys, err := r.in.keys(blob)
	keys = append(slices.Clone(keys), blob, slotOf(k.Image, i).key)
	slices.Sort(keys)
	return slices.Compact(keys), err
}

// documents removes those of the images that are gone: trees first, as their
// names are made of those of the indexes.
func (r *removal) documents() error {
	var errs []error
	free := func(kind string, key digest.Digest) {
		if r.keep[key] || key == "" {
			return
		}
		n, err := r.images.c.Free(kind, key)
		r.out.Freed += n
		errs = append(errs, err)
	}
	blobs := map[digest.Digest]bool{}
	for _, k := range r.gone {
		slots := make([][]digest.Digest, len(k.Layers))
		for i := range k.Layers {
			keys, err := r.slots(k, i)
			errs = append(errs, err)
			slots[i] = keys
		}
		if !r.keep[k.Desc.Digest] {
			for _, key := range treeKeys(k, slots) {
				free("tree", key)
			}
		}
		for i, d := range k.Layers {
			if r.keep[d.Digest] {
				continue
			}
			blobs[d.Digest] = true
			free("image/sizes", d.Digest)
			for _, key := range slots[i] {
				free("index", key)
			}
		}
		free("image/config", k.Manifest.Config.Digest)
		for _, d := range k.documents {
			free("image/manifest", d)
		}
	}
	errs = append(errs, r.claims(blobs, free), r.attached(free), r.profiles(free))
	return errors.Join(errs...)
}

// attached removes what was attached to the images that are gone, and read in
// the hope for indexes.
func (r *removal) attached(free func(string, digest.Digest)) error {
	gone := map[digest.Digest]bool{}
	for _, k := range r.gone {
		gone[k.Desc.Digest] = !r.keep[k.Desc.Digest]
	}
	keys, err := r.images.c.Keys("image/manifest")
	if err != nil {
		return err
	}
	for _, key := range keys {
		raw, err := r.images.c.Read("image/manifest", key)
		if err != nil {
			continue
		}
		var doc struct {
			Subject ocispec.Descriptor `json:"subject"`
		}
		if json.Unmarshal(raw, &doc) == nil && gone[doc.Subject.Digest] {
			free("image/manifest", key)
		}
	}
	return nil
}

// profiles removes what is known of how the images that are gone are read.
func (r *removal) profiles(free func(string, digest.Digest)) error {
	gone := map[digest.Digest]bool{}
	for _, k := range r.gone {
		gone[k.Desc.Digest] = !r.keep[k.Desc.Digest]
	}
	keys, err := r.images.c.Keys("profile")
	if err != nil {
		return err
	}
	for _, key := range keys {
		raw, err := r.images.c.Read("profile", key)
		if err != nil {
			continue
		}
		var doc struct {
			Image digest.Digest `json:"image"`
		}
		if json.Unmarshal(raw, &doc) == nil && gone[doc.Image] {
			free("profile", key)
		}
	}
	return nil
}

// treeKeys are the keys that a tree of the image may have.
func treeKeys(k known, slots [][]digest.Digest) []digest.Digest {
	m := &Image{Manifest: k.Image, keys: make([]digest.Digest, len(slots))}
	var out []digest.Digest
	var choose func(i int)
	choose = func(i int) {
		if len(out) >= maxTrees {
			return
		}
		if i == len(slots) {
			out = append(out, treeKey(m))
			return
		}
		// That by which the layer is known without any claim first.
		own := slotOf(k.Image, i).key
		m.keys[i] = own
		choose(i + 1)
		for _, key := range slots[i] {
			if key != own {
				m.keys[i] = key
				choose(i + 1)
			}
		}
	}
	choose(0)
	return out
}

// claims removes those that speak of nothing but blobs that are gone.
func (r *removal) claims(blobs map[digest.Digest]bool, free func(string, digest.Digest)) error {
	keys, err := r.images.c.Keys("claims")
	if err != nil {
		return err
	}
	for _, key := range keys {
		raw, err := r.images.c.Read("claims", key)
		if err != nil {
			continue
		}
		c, err := decodeClaims(raw)
		left := err != nil
		for blob := range c {
			left = left || !blobs[blob]
		}
		if !left {
			free("claims", key)
		}
	}
	return nil
}
