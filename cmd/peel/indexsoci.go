package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/layer/ztoc"
	"github.com/peelfs/peel/manifest"
)

// sociTool is what zTOCs and indexes say they were made by. It has no version,
// so that the same image always gives the same digests.
const sociTool = "peel"

func (f *sociFlags) add(to *pflag.FlagSet) {
	to.Int64Var(&f.spanSize, "span-size", 0, fmt.Sprintf("least `bytes` of tar between checkpoints (soci; default %d)", ztoc.DefaultSpanSize))
	to.Int64Var(&f.least, "min-layer-size", sociLeast, "`bytes` of a layer from which on it gets an index (soci)")
}

// refuse complains of flags that are of no use without SOCI.
func (f *sociFlags) refuse() error {
	if f.spanSize != 0 || f.least != sociLeast {
		return withRemedy(usagef("--span-size and --min-layer-size are for SOCI indexes"), "add --format soci, or leave them out")
	}
	return nil
}

// sociJob is an image that is to get SOCI indexes, all its words checked.
type sociJob struct {
	sociFlags
	from request
	to   destination
	all  bool // platforms
	json bool
}

// sociIndexing makes an image with SOCI indexes of version 2 of another one:
// its layers and configurations are the same, its manifests name their SOCI
// index, and an OCI index holds both.
type sociIndexing struct {
	*conversion
	job    sociJob
	layers []indexedLayer // of all images
}

// sociLayer is a layer with its zTOC, of which the index is the blob.
type sociLayer struct {
	indexedLayer
	entry ztoc.Layer
}

func (a *app) soci(ctx context.Context, j sociJob) (err error) {
	if j.spanSize < 0 || j.least < 0 {
		return usagef("--span-size and --min-layer-size are at least 0")
	}
	log, err := a.logger(a.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	from, err := a.source(ctx, j.from.ref, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	s := &sociIndexing{conversion: newConversion(from, convertJob{from: j.from.ref, to: j.to}, log), job: j}
	if s.sink, err = j.to.open(from.Registries(), s.repo); err != nil {
		return err
	}
	done := a.showConversion(ctx, s.progress)
	d, err := s.run(ctx)
	done()
	if err != nil {
		return fmt.Errorf("%s: %w", j.from.ref, err)
	}
	name := fmt.Sprintf("%s@%s", j.to, d.Digest)
	if j.json {
		return writeJSON(a.out, indexesReport{Reference: j.from.ref.String(), Digest: d.Digest.String(), Pushed: []string{name}, Layers: s.layers})
	}
	if err := printIndexed(a.out, s.layers); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "\n%s\n", name)
	return err
}

// run writes the image and returns what the destination names then.
func (s *sociIndexing) run(ctx context.Context) (ocispec.Descriptor, error) {
	index, err := s.entries(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	result := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Annotations: index.Annotations,
	}
	var made []ocispec.Descriptor
	became := map[string]string{}
	for _, d := range index.Manifests {
		if d.Annotations[ztoc.AnnotationManifestDigest] != "" {
			continue // a SOCI index of the original
		}
		to, soci, err := s.entry(ctx, d)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		became[d.Digest.String()] = to.Digest.String()
		result.Manifests = append(result.Manifests, to)
		if soci.Digest != "" {
			made = append(made, soci)
		}
	}
	if len(made) == 0 {
		return ocispec.Descriptor{}, withRemedy(fmt.Errorf("no layer can have a SOCI index: none is gzip or tar and has %s", humanSize(s.job.least)),
			"choose another --min-layer-size, or use: peel index push")
	}
	for _, d := range result.Manifests {
		if to, ok := became[d.Annotations[attestsDigest]]; ok {
			d.Annotations[attestsDigest] = to
		}
	}
	result.Manifests = append(result.Manifests, made...)
	return s.put(ctx, result, result.MediaType, s.conversion.job.to.tag)
}

// entries are the images that the reference names: of an index, or one.
func (s *sociIndexing) entries(ctx context.Context) (index ocispec.Index, err error) {
	if !s.job.all {
		img, err := manifest.Resolve(ctx, s.from, s.job.from.ref, s.job.from.platform)
		if err != nil {
			return index, err
		}
		index.Manifests = []ocispec.Descriptor{img.Desc}
		return index, nil
	}
	d, raw, err := s.from.Manifest(ctx, s.job.from.ref.Named())
	if err != nil {
		return index, err
	}
	if d.MediaType, err = settledType(d, raw); err != nil {
		return index, err
	}
	if !isIndex(d) {
		index.Manifests = []ocispec.Descriptor{d}
		return index, nil
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return index, fmt.Errorf("%w: %w", manifest.ErrMalformed, err)
	}
	if len(index.Manifests) > maxConvertImages {
		return index, fmt.Errorf("%w: more than %d images", manifest.ErrMalformed, maxConvertImages)
	}
	return index, nil
}

// entry writes one document of the index, and returns its descriptor and that
// of its SOCI index, which is empty if there is none.
func (s *sociIndexing) entry(ctx context.Context, d ocispec.Descriptor) (to, soci ocispec.Descriptor, err error) {
	ref, err := reference.WithDigest(s.repo, d.Digest)
	if err != nil {
		return d, soci, fmt.Errorf("%w: digest of an entry: %w", manifest.ErrMalformed, err)
	}
	_, raw, err := s.from.Manifest(ctx, ref)
	if err != nil {
		return d, soci, err
	}
	if err := manifest.Verify(raw, d); err != nil {
		return d, soci, fmt.Errorf("%s: %w", ref, err)
	}
	if d.MediaType, err = settledType(d, raw); err != nil {
		return d, soci, fmt.Errorf("%s: %w", ref, err)
	}
	if isIndex(d) {
		return d, soci, fmt.Errorf("%s: %w: an index within an index, which SOCI's readers do not follow", ref, manifest.ErrUnsupported)
	}
	d.Data, d.Annotations = nil, maps.Clone(d.Annotations)
	if isAttestation(d) {
		to, err = s.carry(ctx, d, raw, "")
	} else {
		to, soci, err = s.document(ctx, d, raw)
	}
	d.MediaType, d.Digest, d.Size = to.MediaType, to.Digest, to.Size
	if soci.Digest != "" {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[ztoc.AnnotationIndexDigest] = soci.Digest.String()
		soci.Annotations = map[string]string{ztoc.AnnotationManifestDigest: d.Digest.String()}
		d.Platform = to.Platform
		soci.Platform = d.Platform
	}
	return d, soci, err
}

// document writes an image, or takes over an artifact.
func (s *sociIndexing) document(ctx context.Context, d ocispec.Descriptor, raw []byte) (to, soci ocispec.Descriptor, err error) {
	pinned, err := manifest.ParseReference(s.repo.Name() + "@" + d.Digest.String())
	if err != nil {
		return d, soci, err
	}
	var platform ocispec.Platform
	if d.Platform != nil {
		platform = *d.Platform
	}
	img, err := manifest.Resolve(ctx, held{s.from, d, raw}, pinned, platform)
	if errors.Is(err, manifest.ErrArtifact) || err == nil && img.Artifact {
		to, err = s.carry(ctx, d, raw, "")
		return to, soci, err
	}
	if err == nil {
		err = refuseSchema1(img)
	}
	if err != nil {
		return d, soci, err
	}
	img.Desc.Platform = &img.Platform // it has been chosen; the configuration may say something else
	config, err := manifest.LoadConfig(ctx, s.from, img)
	if err != nil {
		return d, soci, err
	}
	to, soci, err = s.image(ctx, img, config)
	if to.Platform = d.Platform; to.Platform == nil {
		to.Platform = &config.Platform
	}
	return to, soci, err
}

// image writes an image with its SOCI index.
func (s *sociIndexing) image(ctx context.Context, img *manifest.Image, config *manifest.Config) (to, soci ocispec.Descriptor, err error) {
	m := img.Manifest
	m.Layers = slices.Clone(m.Layers)
	layers := make([]sociLayer, len(img.Layers))
	g, gctx := errgroup.WithContext(ctx)
	for i, d := range img.Layers {
		m.Layers[i].MediaType = ociLayerType(d.MediaType)
		g.Go(func() error {
			return s.limited(gctx, func() (err error) {
				layers[i], err = s.layer(gctx, d)
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return to, soci, err
	}
	for _, l := range layers {
		s.layers = append(s.layers, l.indexedLayer)
	}
	m.MediaType, m.Config.MediaType, m.Config.Data = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, nil
	if err := s.putBlob(ctx, m.Config, config.Raw); err != nil {
		return to, soci, err
	}
	m.Annotations = maps.Clone(m.Annotations)
	delete(m.Annotations, ztoc.AnnotationIndexDigest)
	if soci, err = s.index(ctx, layers); err != nil {
		return to, soci, err
	}
	if soci.Digest != "" {
		if m.Annotations == nil {
			m.Annotations = map[string]string{}
		}
		m.Annotations[ztoc.AnnotationIndexDigest] = soci.Digest.String()
	}
	to, err = s.put(ctx, m, m.MediaType, "")
	return to, soci, err
}

// index writes the SOCI index of an image whose zTOCs are there. Its descriptor
// is empty if no layer has one.
func (s *sociIndexing) index(ctx context.Context, layers []sociLayer) (ocispec.Descriptor, error) {
	x := ztoc.Index{BuildTool: sociTool}
	for _, l := range layers {
		if l.Skipped == "" {
			x.Layers = append(x.Layers, l.entry)
		}
	}
	if len(x.Layers) == 0 {
		return ocispec.Descriptor{}, nil
	}
	raw, d, err := x.Encode()
	if err != nil {
		return d, err
	}
	empty := ocispec.Descriptor{MediaType: d.ArtifactType, Digest: digest.FromString(ztoc.EmptyConfig), Size: int64(len(ztoc.EmptyConfig))}
	if err := s.putBlob(ctx, empty, []byte(ztoc.EmptyConfig)); err != nil {
		return d, err
	}
	_, err = s.sink.PutManifest(ctx, raw, d.MediaType, "")
	return d, err
}

// layer takes over a layer, and writes its zTOC.
func (s *sociIndexing) layer(ctx context.Context, d ocispec.Descriptor) (sociLayer, error) {
	l := sociLayer{indexedLayer: indexedLayer{Digest: d.Digest.String(), Compressed: d.Size}}
	switch {
	case foreign(d):
		l.Skipped = "no registry may distribute it"
		return l, nil
	case d.Size < s.job.least:
		l.Skipped = "it is smaller than " + humanSize(s.job.least)
	case !strings.HasSuffix(d.MediaType, "gzip") && !strings.HasSuffix(d.MediaType, "tar"):
		l.Skipped = "SOCI knows gzip and tar only"
	}
	if l.Skipped != "" {
		return l, s.copyBlob(ctx, d)
	}
	toc, err := s.build(ctx, d)
	if errors.Is(err, ztoc.ErrFormat) {
		l.Skipped = oneLine(err.Error())
		return l, s.copyBlob(ctx, d)
	}
	if err != nil {
		return l, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	data, err := toc.Encode()
	if err != nil {
		return l, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	l.entry = ztoc.Layer{Digest: d.Digest, MediaType: ociLayerType(d.MediaType), SpanSize: toc.SpanSize}
	l.entry.TOC = ocispec.Descriptor{MediaType: ztoc.MediaTypeTOC, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.Format = toc.Compression.String()
	l.Names, l.Spans, l.Index, l.Size = len(toc.Files), len(toc.Spans), l.entry.TOC.Digest.String(), l.entry.TOC.Size
	return l, s.putBlob(ctx, l.entry.TOC, data)
}

// build makes the zTOC of a layer, which is written as well if it is not there.
// An error that is ztoc.ErrFormat is about right bytes.
func (s *sociIndexing) build(ctx context.Context, d ocispec.Descriptor) (*ztoc.TOC, error) {
	there, err := s.sink.HasBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	if m, ok := s.sink.(blobMounter); ok && !there {
		if there, err = m.Mount(ctx, d); err != nil {
			return nil, err
		}
	}
	in, err := s.openBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var toc *ztoc.TOC
	read := func(r io.Reader) (digest.Digest, error) {
		var err error
		toc, err = ztoc.Build(ctx, r, ztoc.BuildOptions{SpanSize: s.job.spanSize, BuildTool: sociTool})
		// Before the error: wrong bytes are likely to be why.
		if wrong := in.verify(); wrong != nil {
			return "", wrong
		}
		return d.Digest, err
	}
	if there {
		_, err = read(in)
	} else {
		err = s.write(ctx, func(w io.Writer) (digest.Digest, error) { return read(io.TeeReader(in, w)) })
	}
	return toc, err
}
