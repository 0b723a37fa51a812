package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/internal/jsonlist"
)

// Docker's media types (distribution's manifest-v2-2.md); zstd by analogy.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

func layerType(c compression) string {
	switch c {
	case gzipped:
		return dockerLayer + ".gzip"
	case zstandard:
		return dockerLayer + ".zstd"
	default:
		return dockerLayer
	}
}

// part is a layer of an image in the making.
type part struct {
	file   *file // nil: it lies elsewhere, as desc tells
	packed compression
	desc   ocispec.Descriptor
	diffID digest.Digest // "": to be found by reading it
}

// sums are the digests of a file, found by reading it.
type sums struct{ blob, diffID digest.Digest }

// work is the making of one image's manifest.
type work struct {
	from   *docker
	parts  []part  // bottom first
	opened []*file // until it is done
	config []byte
}

// build makes the manifest that the image would have in a registry. Only what
// no name and no configuration tells is read: the digests of layers that are
// compressed, and of all layers in the legacy form.
func (d *docker) build(ctx context.Context, im *dockerImage) (b *built, err error) {
	w := &work{from: d}
	defer func() {
		for _, f := range w.opened {
			err = errors.Join(err, f.Close())
		}
	}()
	if im.top != "" {
		err = w.legacy(ctx, im)
	} else {
		err = w.current(ctx, im)
	}
	if err != nil {
		return nil, err
	}
	return w.assemble()
}

// current reads the configuration and opens the layers that manifest.json
// lists.
func (w *work) current(ctx context.Context, im *dockerImage) (err error) {
	if w.config, err = readConfig(w.from.in, im.config); err != nil {
		return err
	}
	diffIDs, err := diffIDsOf(w.config)
	if err != nil {
		return fmt.Errorf("%w: entry %s: %w", ErrMalformed, quote(im.config), err)
	}
	if len(diffIDs) != len(im.layers) {
		return fmt.Errorf("%w: %s lists %d layers, and entry %s %d diff_ids", ErrMalformed,
			manifestFile, len(im.layers), quote(im.config), len(diffIDs))
	}
	for i, name := range im.layers {
		if err := w.add(name, diffIDs[i], im.sources); err != nil {
			return err
		}
	}
	return w.complete(ctx)
}

// readConfig reads a configuration. A digest in its name must be its own.
func readConfig(in folder, name string) ([]byte, error) {
	raw, err := document(in, name, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", absent(err, name))
	}
	if want := digestIn(name); want != "" && digest.FromBytes(raw) != want {
		return nil, fmt.Errorf("%w: entry %s has digest %s", ErrVerify, quote(name), digest.FromBytes(raw))
	}
	return raw, nil
}

// absent says of a file that should be there that the place is not whole.
func absent(err error, name string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: entry %s is missing; copy or save it again", ErrMalformed, quote(name))
	}
	return err
}

// digestIn is the digest that a name is made of: blobs/sha256/HEX, HEX.json,
// HEX.tar.gz, sha256:HEX; "" if it is not made so.
func digestIn(name string) digest.Digest {
	base := strings.TrimPrefix(path.Base(name), digest.SHA256.String()+":")
	base, _, _ = strings.Cut(base, ".")
	if digest.SHA256.Validate(base) != nil {
		return ""
	}
	return digest.NewDigestFromEncoded(digest.SHA256, base)
}

func diffIDsOf(config []byte) ([]digest.Digest, error) {
	var c struct {
		RootFS struct {
			DiffIDs json.RawMessage `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	all, err := jsonlist.Decode[digest.Digest](c.RootFS.DiffIDs, maxLayers)
	if err != nil {
		return nil, fmt.Errorf("diff_ids: %w", err)
	}
	for _, id := range all {
		if err := id.Validate(); err != nil {
			return nil, fmt.Errorf("diff_ids: %s: %w", quote(string(id)), err)
		}
	}
	return all, nil
}

// add opens the layer called name. One that is not there must have URLs.
func (w *work) add(name string, diffID digest.Digest, sources map[digest.Digest]ocispec.Descriptor) error {
	f, err := w.from.in.open(name)
	if src := sources[diffID]; errors.Is(err, fs.ErrNotExist) && len(src.URLs) > 0 {
		w.parts = append(w.parts, part{desc: src, diffID: diffID})
		return nil
	}
	if err != nil {
		return fmt.Errorf("layer: %w", absent(err, name))
	}
	w.opened = append(w.opened, f)
	p := part{file: f, diffID: diffID}
	if p.packed, err = compressionOf(io.NewSectionReader(f, 0, f.size)); err != nil {
		return about(f, err)
	}
	p.desc = ocispec.Descriptor{MediaType: layerType(p.packed), Size: f.size}
	if named := digestIn(f.name); p.packed == plain {
		p.desc.Digest = diffID
	} else if named != diffID {
		p.desc.Digest = named
	}
	w.parts = append(w.parts, p)
	return nil
}

// complete reads the layers whose digests are not known yet, each file once.
func (w *work) complete(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	started := map[string]bool{}
	for _, p := range w.parts {
		if p.desc.Digest != "" && p.diffID != "" || started[p.file.name] {
			continue
		}
		started[p.file.name] = true
		g.Go(func() error { return w.from.sum(ctx, p) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range w.parts {
		p := &w.parts[i]
		if p.desc.Digest == "" {
			p.desc.Digest = w.from.sums[p.file.name].blob
		}
		if p.diffID == "" {
			p.diffID = w.from.sums[p.file.name].diffID
		}
	}
	return nil
}

// sum finds the digests of p that are not known, unless an image before had
// the same file.
func (d *docker) sum(ctx context.Context, p part) error {
	d.mu.Lock()
	known, ok := d.sums[p.file.name]
	d.mu.Unlock()
	if ok && (p.diffID != "" || known.diffID != "") {
		return nil
	}
	var s sums
	var err error
	if p.diffID == "" {
		s, err = both(ctx, p)
	} else {
		s.blob, err = p.file.sum(ctx)
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sums[p.file.name] = s
	return nil
}

// assemble makes the manifest.
func (w *work) assemble() (*built, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: dockerManifest,
		Config:    ocispec.Descriptor{MediaType: dockerConfig, Digest: digest.FromBytes(w.config), Size: int64(len(w.config))},
		Layers:    []ocispec.Descriptor{},
	}
	b := &built{config: w.config, layers: map[digest.Digest]*file{}}
	for _, p := range w.parts {
		m.Layers = append(m.Layers, p.desc)
		if p.file == nil {
			continue
		}
		first, twice := b.layers[p.desc.Digest]
		if twice && first.size != p.file.size {
			return nil, fmt.Errorf("%w: entries %s and %s are said to be both %s, and have %d and %d bytes", ErrMalformed,
				quote(first.name), quote(p.file.name), p.desc.Digest, first.size, p.file.size)
		}
		b.layers[p.desc.Digest] = p.file
	}
	var err error
	if b.raw, err = json.Marshal(m); err != nil {
		return nil, err
	}
	b.desc = ocispec.Descriptor{MediaType: dockerManifest, Digest: digest.FromBytes(b.raw), Size: int64(len(b.raw))}
	return b, nil
}
