package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// maxIndexBlob is the size limit of an index that somebody hands out, bytes.
// It is read into memory.
const maxIndexBlob = 256 << 20

// claim is an index of a layer that somebody hands out.
type claim struct {
	Index         ocispec.Descriptor `json:"index"` // the blob: of manifest.LayerIndexType, or a zTOC
	Repo          string             `json:"repository"`
	Origin        string             `json:"origin"`
	DisableXattrs bool               `json:"disable_xattrs,omitempty"`
}

// claims are those of an image's layers, by digest. They are kept in the cache
// as a document, so that an image is looked up once.
type claims map[digest.Digest]claim

// slot is where the cache has the index that c is for layer d.
func (c *claim) slot(d ocispec.Descriptor) slot {
	name := d.Digest.String() + "\n" + c.Index.Digest.String()
	if c.DisableXattrs {
		name += "\nwithout xattrs"
	}
	return slot{key: digest.FromString(name), claim: c.Index.Digest}
}

func decodeClaims(data []byte) (claims, error) {
	var c claims
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", flat.ErrCorrupt, err)
	}
	for of, one := range c {
		if err := errors.Join(of.Validate(), one.Index.Digest.Validate()); err != nil {
			return nil, fmt.Errorf("%w: %w", flat.ErrCorrupt, err)
		}
	}
	return c, nil
}

// claimsKey names the claims of an image: what is attached to it in one
// repository is nothing to another.
func (op *opening) claimsKey(m *Image) digest.Digest {
	name := m.Manifest.Reference.Named().Name() + "\n" + m.Manifest.Desc.Digest.String() + "\n"
	if op.IndexRepo != nil {
		name += op.IndexRepo.Name()
	}
	if n := m.Manifest.Named; n != nil {
		name += "\n" + n.Desc.Digest.String()
	}
	return digest.FromString(name)
}

// recall returns the claims that an earlier opening has found.
func (op *opening) recall(m *Image) claims {
	data, err := op.Cache.Read("claims", op.claimsKey(m))
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	var c claims
	if err == nil {
		c, err = decodeClaims(data)
	}
	if err != nil {
		op.Log.WithError(err).WithField("image", m.Manifest.Desc.Digest).Info("looking for indexes anew")
	}
	return c
}

func (op *opening) remember(m *Image, c claims) {
	data, err := json.Marshal(c)
	if err == nil {
		err = op.Cache.Write("claims", op.claimsKey(m), data)
	}
	if err != nil {
		op.Log.WithError(err).WithField("image", m.Manifest.Desc.Digest).Warn("the next mount looks for indexes again")
	}
}

// smallIndex is the size up to which indexes are fetched side by side, bytes.
const smallIndex = 16 << 20

// fetchIndex gets the index that c is for layer d. Only one at a time is
// unpacked, and only one that is large fetched: a hostile one takes 512 MiB, and
// an image has many layers. The caller unlocks op.unpacking.
func (op *opening) fetchIndex(ctx context.Context, d ocispec.Descriptor, c *claim) (*layer.Index, error) {
	if c.Index.Size > smallIndex {
		op.unpacking.Lock()
	}
	raw, err := op.readBlob(ctx, c)
	if c.Index.Size <= smallIndex {
		op.unpacking.Lock()
	}
	if err != nil {
		return nil, err
	}
	of := layer.Claim{Digest: c.Index.Digest, Origin: c.Origin, DisableXattrs: c.DisableXattrs}
	if c.Index.MediaType == manifest.LayerIndexType {
		return layer.Unpack(raw, d, of)
	}
	return layer.FromZTOC(raw, d, of)
}

func (op *opening) readBlob(ctx context.Context, c *claim) ([]byte, error) {
	if c.Index.Size <= 0 || c.Index.Size > maxIndexBlob {
		return nil, fmt.Errorf("%w: %d bytes, of %d allowed", layer.ErrMalformed, c.Index.Size, maxIndexBlob)
	}
	repo, err := reference.ParseNormalizedNamed(c.Repo)
	if err != nil {
		return nil, err
	}
	r, err := op.Registry.Layer(repo, c.Index).ReadRange(ctx, 0, c.Index.Size)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, c.Index.Size)
	_, err = io.ReadFull(r, raw)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	return raw, manifest.Verify(raw, c.Index)
}
