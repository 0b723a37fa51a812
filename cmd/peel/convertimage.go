package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/peelfs/peel/manifest"
)

const (
	dockerListType = "application/vnd.docker.distribution.manifest.list.v2+json"

	maxConvertDepth  = 4   // indexes within indexes
	maxConvertImages = 512 // of one index, those within it included
)

// Annotations by which BuildKit ties an attestation to the image of the same
// index that it is about.
const (
	attestsDigest = "vnd.docker.reference.digest"
	attestsType   = "vnd.docker.reference.type"
)

// conversion is one run of peel convert.
type conversion struct {
	from     source
	job      convertJob
	repo     reference.Named // of the original
	sink     convertSink
	progress *convertProgress
	log      *logrus.Entry
	slots    *semaphore.Weighted

	mu     sync.Mutex // guards what follows
	layers map[digest.Digest]*convertedLayer
	images int
	found  map[string]bool // paths of the profile
}

func newConversion(from source, j convertJob, log *logrus.Entry) *conversion {
	return &conversion{
		from: from, job: j, repo: reference.TrimNamed(j.from.Named()), progress: newConvertProgress(), log: log,
		slots:  semaphore.NewWeighted(convertLayers),
		layers: map[digest.Digest]*convertedLayer{}, found: map[string]bool{},
	}
}

// run converts what the reference names and returns what the destination names
// then.
func (c *conversion) run(ctx context.Context) (ocispec.Descriptor, error) {
	if c.job.platform != nil {
		img, err := manifest.Resolve(ctx, c.from, c.job.from, *c.job.platform)
		if err == nil {
			// An image without an index says only in its config what it is for.
			_, err = manifest.LoadConfig(ctx, c.from, img)
		}
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if img.Artifact {
			return c.carry(ctx, img.Desc, img.Raw, c.job.to.tag)
		}
		return c.image(ctx, img, c.job.to.tag)
	}
	d, raw, err := c.from.Manifest(ctx, c.job.from.Named())
	if err != nil {
		return d, err
	}
	if d.MediaType, err = settledType(d, raw); err != nil {
		return d, err
	}
	if isIndex(d) {
		return c.index(ctx, raw, c.job.to.tag, 1)
	}
	return c.manifest(ctx, d, raw, c.job.to.tag)
}

// settledType is the media type of a document, which the server may not know.
func settledType(d ocispec.Descriptor, raw []byte) (string, error) {
	switch d.MediaType {
	case "", "application/json", "application/octet-stream", "text/plain":
		return manifest.MediaType(raw)
	}
	return d.MediaType, nil
}

func isIndex(d ocispec.Descriptor) bool {
	return d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == dockerListType
}

// index converts all images of an index.
func (c *conversion) index(ctx context.Context, raw []byte, tag string, depth int) (ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", manifest.ErrMalformed, err)
	}
	if depth > maxConvertDepth {
		return ocispec.Descriptor{}, fmt.Errorf("%w: indexes nest more than %d deep", manifest.ErrMalformed, maxConvertDepth)
	}
	c.mu.Lock()
	c.images += len(index.Manifests)
	many := c.images > maxConvertImages
	c.mu.Unlock()
	if many {
		return ocispec.Descriptor{}, fmt.Errorf("%w: more than %d images", manifest.ErrMalformed, maxConvertImages)
	}
	converted := make([]ocispec.Descriptor, len(index.Manifests))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(convertLayers)
	for i, d := range index.Manifests {
		g.Go(func() error {
			to, err := c.entry(gctx, d, depth)
			converted[i] = to
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return ocispec.Descriptor{}, err
	}
	became := map[string]string{}
	for i, d := range index.Manifests {
		became[d.Digest.String()] = converted[i].Digest.String()
	}
	for i := range converted {
		if to, ok := became[converted[i].Annotations[attestsDigest]]; ok {
			converted[i].Annotations[attestsDigest] = to
		}
	}
	index.MediaType, index.Manifests = ocispec.MediaTypeImageIndex, converted
	return c.put(ctx, index, index.MediaType, tag)
}

// entry converts one document of an index.
func (c *conversion) entry(ctx context.Context, d ocispec.Descriptor, depth int) (ocispec.Descriptor, error) {
	ref, err := reference.WithDigest(c.repo, d.Digest)
	if err != nil {
		return d, fmt.Errorf("%w: digest of an entry: %w", manifest.ErrMalformed, err)
	}
	_, raw, err := c.from.Manifest(ctx, ref)
	if err != nil {
		return d, err
	}
	if err := manifest.Verify(raw, d); err != nil {
		return d, fmt.Errorf("%s: %w", ref, err)
	}
	if d.MediaType, err = settledType(d, raw); err != nil {
		return d, fmt.Errorf("%s: %w", ref, err)
	}
	var to ocispec.Descriptor
	switch {
	case isIndex(d):
		to, err = c.index(ctx, raw, "", depth+1)
	case isAttestation(d):
		to, err = c.carry(ctx, d, raw, "")
	default:
		to, err = c.manifest(ctx, d, raw, "")
	}
	d.MediaType, d.Digest, d.Size, d.Data = to.MediaType, to.Digest, to.Size, nil
	return d, err
}

// isAttestation recognises the entries in which BuildKit keeps provenance and
// bills of material.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations[attestsType] != "" || d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// manifest converts an image, or takes over an artifact.
func (c *conversion) manifest(ctx context.Context, d ocispec.Descriptor, raw []byte, tag string) (ocispec.Descriptor, error) {
	pinned, err := manifest.ParseReference(c.repo.Name() + "@" + d.Digest.String())
	if err != nil {
		return d, err
	}
	var platform ocispec.Platform
	if d.Platform != nil {
		platform = *d.Platform
	}
	img, err := manifest.Resolve(ctx, held{c.from, d, raw}, pinned, platform)
	if errors.Is(err, manifest.ErrArtifact) && tag == "" || err == nil && img.Artifact {
		return c.carry(ctx, d, raw, tag)
	}
	if err != nil {
		return d, err
	}
	return c.image(ctx, img, tag)
}

// held is a source whose one manifest is here already.
type held struct {
	source
	desc ocispec.Descriptor
	raw  []byte
}

func (h held) Manifest(context.Context, reference.Named) (ocispec.Descriptor, []byte, error) {
	return ocispec.Descriptor{MediaType: h.desc.MediaType, Digest: h.desc.Digest, Size: int64(len(h.raw))}, h.raw, nil
}

// image converts all layers of an image and writes the documents that say so.
func (c *conversion) image(ctx context.Context, img *manifest.Image, tag string) (ocispec.Descriptor, error) {
	if err := refuseSchema1(img); err != nil {
		return img.Desc, err
	}
	img.Desc.Platform = &img.Platform // it has been chosen; the configuration may say something else
	config, err := manifest.LoadConfig(ctx, c.from, img)
	if err != nil {
		return img.Desc, err
	}
	layers := make([]ocispec.Descriptor, len(img.Layers))
	diffIDs := make([]digest.Digest, len(img.Layers))
	g, gctx := errgroup.WithContext(ctx)
	for i, d := range img.Layers {
		g.Go(func() error {
			to, diffID, err := c.layer(gctx, d, config.RootFS.DiffIDs[i])
			layers[i], diffIDs[i] = to, diffID
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return img.Desc, err
	}
	raw, err := replaceDiffIDs(config.Raw, config.RootFS.DiffIDs, diffIDs)
	if err != nil {
		return img.Desc, fmt.Errorf("config %s: %w", img.Manifest.Config.Digest, err)
	}
	m := img.Manifest
	m.MediaType, m.Layers = ocispec.MediaTypeImageManifest, layers
	m.Config.MediaType, m.Config.Data = ocispec.MediaTypeImageConfig, nil
	m.Config.Digest, m.Config.Size = m.Config.Digest.Algorithm().FromBytes(raw), int64(len(raw))
	if err := c.putBlob(ctx, m.Config, raw); err != nil {
		return img.Desc, err
	}
	return c.put(ctx, m, m.MediaType, tag)
}

// refuseSchema1 refuses an image whose configuration nobody has written.
func refuseSchema1(img *manifest.Image) error {
	if !img.Schema1 {
		return nil
	}
	return withRemedy(fmt.Errorf("to convert manifests of Docker schema 1 is %w", manifest.ErrUnsupported), "write it as a newer one first: peel save -o oci:DIR")
}

// carry takes over a manifest with all its blobs as they are.
func (c *conversion) carry(ctx context.Context, d ocispec.Descriptor, raw []byte, tag string) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return d, fmt.Errorf("%s: %w: %w", d.Digest, manifest.ErrMalformed, err)
	}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := c.copyBlob(ctx, b); err != nil {
			return d, err
		}
	}
	return c.sink.PutManifest(ctx, raw, d.MediaType, tag)
}

// put writes a document.
func (c *conversion) put(ctx context.Context, doc any, mediaType, tag string) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return c.sink.PutManifest(ctx, raw, mediaType, tag)
}

// maxMissed is how many paths of a profile are named that no layer has.
const maxMissed = 20

// warnMissed tells of paths of the profile that no layer has.
func (c *conversion) warnMissed() {
	missed := 0
	for _, path := range c.job.layers.Profile {
		if c.found[path] {
			continue
		}
		if missed++; missed <= maxMissed {
			c.log.Warnf("the profile's %q is not in the image", path)
		}
	}
	if missed > maxMissed {
		c.log.Warnf("nor are %d more of the profile's paths", missed-maxMissed)
	}
}
