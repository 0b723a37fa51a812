package demo

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// image is a built image. Its blobs are files named by their digests' hex.
type image struct {
	manifest []byte
	layers   []ocispec.Descriptor
	contents
	compressed int64 // of the layers, bytes
}

type built struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	contents
}

// build makes an eStargz image of the layers that rs describe, in the folder
// blobs. tmp is for what is only needed meanwhile.
func build(ctx context.Context, rs []recipe, blobs, tmp string) (*image, error) {
	layers := make([]built, len(rs))
	g, gctx := errgroup.WithContext(ctx)
	for i, r := range rs {
		g.Go(func() (err error) {
			layers[i], err = buildLayer(gctx, r, blobs, tmp)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return assemble(layers, blobs)
}

func assemble(layers []built, blobs string) (*image, error) {
	img := &image{}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range layers {
		img.layers = append(img.layers, l.desc)
		img.compressed += l.desc.Size
		img.names += l.names
		img.bytes += l.bytes
		if l.pick != "" {
			img.pick = l.pick
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := os.WriteFile(filepath.Join(blobs, desc.Digest.Encoded()), raw, 0o600); err != nil {
		return nil, err
	}
	img.manifest, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: desc, Layers: img.layers,
	})
	return img, err
}

func buildLayer(ctx context.Context, r recipe, blobs, tmp string) (l built, err error) {
	f, err := os.CreateTemp(tmp, "layer-*.tar")
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if l.contents, err = r.write(ctx, f); err != nil {
		return l, fmt.Errorf("pack %v: %w", r.roots, err)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return l, err
	}
	b, err := estargz.Build(io.NewSectionReader(f, 0, size),
		estargz.WithContext(ctx), estargz.WithCompressionLevel(gzip.BestSpeed))
	if err == nil {
		defer func() { err = errors.Join(err, b.Close()) }()
	}
	if cerr := ctx.Err(); cerr != nil {
		return l, cerr // the converter says that its files were closed under it
	}
	if err != nil {
		return l, fmt.Errorf("convert to eStargz: %w", err)
	}
	if l.desc, err = store(blobs, b); err != nil {
		return l, err
	}
	l.diffID = b.DiffID()
	l.desc.MediaType = ocispec.MediaTypeImageLayerGzip
	l.desc.Annotations = map[string]string{estargz.TOCJSONDigestAnnotation: b.TOCDigest().String()}
	return l, nil
}

// store writes a blob as the file of its digest.
func store(blobs string, r io.Reader) (d ocispec.Descriptor, err error) {
	f, err := os.CreateTemp(blobs, "new-*")
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := digest.Canonical.Digester()
	if d.Size, err = io.Copy(io.MultiWriter(f, hash.Hash()), r); err != nil {
		return d, err
	}
	d.Digest = hash.Digest()
	return d, os.Rename(f.Name(), filepath.Join(blobs, d.Digest.Encoded()))
}
