package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/layer/convert"
	"github.com/peelfs/peel/manifest"
)

const (
	maxSavedDocuments = 8192 // that one index leads to
	maxSavedDepth     = 8    // of indexes within indexes, all of which are held in memory
	saveTries         = 4    // of a blob whose bytes are wrong
)

// saving saves what one reference names.
type saving struct {
	*conversion // where it comes from
	to          *savePlace
	names       []savedName
	abroad      bool // foreign layers may be read
	left        atomic.Int64

	mu      sync.Mutex
	diffIDs map[digest.Digest]digest.Digest // under mu; of layers that were written for that
}

// image saves the image of one platform.
func (s *saving) image(ctx context.Context, p ocispec.Platform) (ocispec.Descriptor, error) {
	img, err := manifest.Resolve(ctx, s.from, s.job.from, p)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.resolved(ctx, img)
}

func (s *saving) resolved(ctx context.Context, img *manifest.Image) (ocispec.Descriptor, error) {
	config, err := manifest.LoadConfig(ctx, s.from, img)
	if err != nil {
		return img.Desc, err
	}
	switch s.to.saver.(type) {
	case archiveSaver:
		return s.forDocker(ctx, img, config)
	case dirSaver:
		return s.asItIs(ctx, img, config)
	}
	if img.Schema1 || !hasManifest(s.job.from) {
		return s.asOCI(ctx, img, config)
	}
	return s.asItIs(ctx, img, config)
}

// hasManifest: where the image is from docker save, its manifest was made up
// when it was read.
func hasManifest(ref manifest.Reference) bool {
	return ref.Transport() != manifest.TransportDockerArchive && ref.Transport() != manifest.TransportDockerDir
}

// asItIs saves the manifest's very bytes, with all blobs that they name.
func (s *saving) asItIs(ctx context.Context, img *manifest.Image, config *manifest.Config) (ocispec.Descriptor, error) {
	blobs := img.Blobs()
	if !img.DiffIDsUnknown() {
		blobs = blobs[1:] // the configuration is here
		if err := s.put(ctx, img.Manifest.Config, config.Raw); err != nil {
			return img.Desc, err
		}
	}
	if err := s.blobs(ctx, blobs, s.copy); err != nil {
		return img.Desc, err
	}
	return img.Desc, s.to.Image(ctx, savedImage{desc: img.Desc, raw: img.Raw, names: s.names, log: s.log})
}

// asOCI saves an image with a new manifest, one of OCI's, since skopeo finds no
// others in layouts. The configuration, and thereby the image's ID, is the
// same as in Docker's schema 2.
func (s *saving) asOCI(ctx context.Context, img *manifest.Image, config *manifest.Config) (ocispec.Descriptor, error) {
	config, err := s.layers(ctx, img, config)
	if err != nil {
		return img.Desc, err
	}
	if err := s.put(ctx, img.Manifest.Config, config.Raw); err != nil {
		return img.Desc, err
	}
	m := img.Manifest
	m.MediaType, m.Config.MediaType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	m.Layers = slices.Clone(m.Layers)
	for i := range m.Layers {
		m.Layers[i].MediaType = ociLayerType(m.Layers[i].MediaType)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return img.Desc, err
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return d, s.to.Image(ctx, savedImage{desc: d, raw: raw, names: s.names, log: s.log})
}

// forDocker saves configuration and layers; there is no manifest in the
// archive of docker save.
func (s *saving) forDocker(ctx context.Context, img *manifest.Image, config *manifest.Config) (ocispec.Descriptor, error) {
	if img.Artifact {
		return img.Desc, withRemedy(fmt.Errorf("%w, which docker could not load", manifest.ErrArtifact), "save it to oci:DIR or dir:DIR")
	}
	config, err := s.layers(ctx, img, config)
	if err != nil {
		return img.Desc, err
	}
	return img.Desc, s.to.Image(ctx, savedImage{
		desc: img.Desc, raw: img.Raw, names: s.names, log: s.log,
		config: config.Raw, layers: img.Layers, diffIDs: config.DiffIDs(),
	})
}

// layers saves the layers of an image. If nobody knows their diffIDs, the
// configuration that it returns has them, from what the layers unpack to.
func (s *saving) layers(ctx context.Context, img *manifest.Image, config *manifest.Config) (*manifest.Config, error) {
	if !img.DiffIDsUnknown() {
		return config, s.blobs(ctx, img.Layers, s.copy)
	}
	s.diffIDs = map[digest.Digest]digest.Digest{}
	if err := s.blobs(ctx, img.Layers, s.copyUnpacked); err != nil {
		return nil, err
	}
	diffIDs := make([]digest.Digest, len(img.Layers))
	for i, d := range img.Layers {
		diffIDs[i] = s.diffIDs[d.Digest]
	}
	return manifest.CompleteConfig(img, diffIDs)
}

// everything saves all that an index leads to.
func (s *saving) everything(ctx context.Context) (ocispec.Descriptor, error) {
	d, raw, err := s.from.Manifest(ctx, s.job.from.Named())
	if err != nil {
		return d, err
	}
	if pinned, ok := s.job.from.Digest(); ok {
		d.Digest = pinned
	}
	if d.MediaType, err = settledType(d, raw); err != nil {
		return d, err
	}
	_, index, err := manifest.ReadManifest(d, raw)
	if err != nil {
		return d, err
	}
	if index == nil {
		return s.image(ctx, ocispec.Platform{})
	}
	seen := map[digest.Digest]bool{d.Digest: true}
	if err := s.entries(ctx, index, seen, 1); err != nil {
		return d, err
	}
	d = ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	return d, s.to.Image(ctx, savedImage{desc: d, raw: raw, names: s.names, log: s.log})
}

// entries saves those of an index that were not seen yet, depth levels down.
func (s *saving) entries(ctx context.Context, index *ocispec.Index, seen map[digest.Digest]bool, depth int) error {
	if depth > maxSavedDepth {
		return fmt.Errorf("%w: indexes nest more than %d deep", manifest.ErrMalformed, maxSavedDepth)
	}
	for _, d := range index.Manifests {
		if seen[d.Digest] {
			continue
		}
		if seen[d.Digest] = true; len(seen) > maxSavedDocuments {
			return fmt.Errorf("%w: its indexes lead to more than %d documents", manifest.ErrMalformed, maxSavedDocuments)
		}
		if err := s.entry(ctx, d, seen, depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *saving) entry(ctx context.Context, d ocispec.Descriptor, seen map[digest.Digest]bool, depth int) error {
	named, err := reference.WithDigest(s.repo, d.Digest)
	if err != nil {
		return fmt.Errorf("%w: entry %.100q of the index: %w", manifest.ErrMalformed, d.Digest, err)
	}
	_, raw, err := s.from.Manifest(ctx, named)
	if err != nil {
		return err
	}
	m, index, err := manifest.ReadManifest(d, raw)
	switch {
	case errors.Is(err, manifest.ErrUnsupported):
		err = manifest.Verify(raw, d) // a document of another kind is saved without what it may name
	case err != nil:
	case index != nil:
		err = s.entries(ctx, index, seen, depth+1)
	case m.Config.Digest == "":
		err = fmt.Errorf("%w in an index: a manifest of Docker schema 1", manifest.ErrUnsupported)
	default:
		err = s.blobs(ctx, append([]ocispec.Descriptor{m.Config}, m.Layers...), s.copy)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	return s.put(ctx, d, raw)
}

// blobs saves several, each once.
func (s *saving) blobs(ctx context.Context, list []ocispec.Descriptor, save func(context.Context, ocispec.Descriptor) error) error {
	seen := map[digest.Digest]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(s.to.workers)
	for _, d := range list {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		g.Go(func() error { return s.retried(gctx, d, save) })
	}
	return g.Wait()
}

// retried saves a blob again if a registry has sent wrong bytes; whatever else
// goes wrong was tried again where it did.
func (s *saving) retried(ctx context.Context, d ocispec.Descriptor, save func(context.Context, ocispec.Descriptor) error) error {
	for try := 1; ; try++ {
		err := save(ctx, d)
		if err == nil || !errdefs.IsDataLoss(err) || try == saveTries || s.to.path == "" || s.job.from.Transport() != "" {
			return err
		}
		s.log.Warnf("%v; once more", err)
	}
}

// put saves a blob of which all is here.
func (s *saving) put(ctx context.Context, d ocispec.Descriptor, raw []byte) error {
	if there, err := s.to.Has(ctx, d); err != nil || there {
		return err
	}
	return s.to.Blob(ctx, d, bytes.NewReader(raw))
}

// copy saves a blob unless it is there already.
func (s *saving) copy(ctx context.Context, d ocispec.Descriptor) error {
	if there, err := s.to.Has(ctx, d); err != nil || there {
		return err
	}
	here := s.job.from.Transport() != ""
	elsewhere := foreign(d) && len(d.URLs) > 0
	if elsewhere && !here && !s.abroad {
		s.left.Add(1)
		return nil
	}
	if d.Size < 0 {
		var err error
		if d.Size, err = s.from.BlobSize(ctx, s.repo, d.Digest); err != nil {
			return err
		}
	}
	in, err := s.open(ctx, d)
	if elsewhere && here && !s.abroad && errdefs.IsNotFound(err) {
		s.left.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	return s.to.Blob(ctx, d, in)
}

func (s *saving) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if d.Size == 0 { // of nothing there is no range
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return s.openBlob(ctx, d)
}

// copyUnpacked is copy, and keeps the digest of what the layer unpacks to. It
// reads layers that are there as well.
func (s *saving) copyUnpacked(ctx context.Context, d ocispec.Descriptor) error {
	there, err := s.to.Has(ctx, d)
	if err != nil {
		return err
	}
	in, err := s.open(ctx, d)
	if err != nil {
		return err
	}
	defer in.Close()
	packed, feed := io.Pipe()
	var diffID digest.Digest
	var g errgroup.Group
	g.Go(func() (err error) {
		diffID, err = unpackedDigest(packed)
		// To the end in any case: of wrong bytes the digest tells, and then
		// they are asked for again.
		_, _ = io.Copy(io.Discard, packed)
		return err
	})
	both := io.TeeReader(in, feed)
	if there {
		err = readVerified(d, both)
	} else {
		err = s.to.Blob(ctx, d, both)
	}
	feed.CloseWithError(err)
	if unpacking := g.Wait(); err == nil {
		err = unpacking
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diffIDs[d.Digest] = diffID
	return nil
}

// readVerified reads a blob to its end, and fails if it is not d's.
func readVerified(d ocispec.Descriptor, r io.Reader) error {
	v := d.Digest.Verifier()
	if _, err := io.Copy(v, r); err != nil {
		return err
	}
	if !v.Verified() {
		return fmt.Errorf("%w: its bytes have another digest", layer.ErrVerify)
	}
	return nil
}

// unpackedDigest is the digest of what a layer unpacks to.
func unpackedDigest(packed io.Reader) (digest.Digest, error) {
	tar, err := convert.Uncompress(packed)
	if err != nil {
		return "", err
	}
	defer tar.Close()
	sum := digest.SHA256.Digester()
	_, err = io.Copy(sum.Hash(), tar)
	return sum.Digest(), err
}
