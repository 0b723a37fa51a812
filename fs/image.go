package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// Registry is where images come from.
type Registry interface {
	manifest.Fetcher
	// Layer returns the blob that d describes, without I/O.
	Layer(ref reference.Named, d ocispec.Descriptor) layer.Source
	// Referrers lists what is attached to the manifest d in the repository of
	// ref: nothing, if the registry knows of nothing.
	Referrers(ctx context.Context, ref reference.Named, d digest.Digest) ([]ocispec.Descriptor, error)
}

// Docs keeps documents by kind ("image/manifest", "image/config", "index",
// "claims", "tree") and digest. Read and Map report io/fs.ErrNotExist for what it has not.
type Docs interface {
	Read(kind string, key digest.Digest) ([]byte, error)
	Map(kind string, key digest.Digest) (*flat.Mapping, error)
	Write(kind string, key digest.Digest, data []byte) error
}

// Refs remembers what a reference resolved to, and when.
type Refs interface {
	Ref(name string) (digest.Digest, time.Time, error)
	SetRef(name string, d digest.Digest) error
}

// Stores keeps the data of layers.
type Stores interface {
	Store(key digest.Digest, size int64, spans int) (layer.Store, error)
	// Stage returns when no other process streams the same layer.
	Stage(ctx context.Context, key digest.Digest) (layer.Stage, error)
}

// Cache is what is kept on disk.
type Cache interface {
	Docs
	Refs
	Stores
}

// Pull says when a tag is resolved by its registry, as docker run --pull does.
// A digest never needs to be.
type Pull int

const (
	// PullMissing asks only for tags that were never resolved before.
	PullMissing Pull = iota
	// PullAlways asks every time.
	PullAlways
	// PullNever never asks; an unknown tag or document is not found. File data
	// is still read from the registry where the cache lacks it.
	PullNever
)

// Options say how to open an image. Registry and Cache are required.
type Options struct {
	Registry Registry
	Cache    Cache
	Platform ocispec.Platform // zero: this machine's
	Pull     Pull
	// IndexRepo is a repository with indexes of images that it has not; nil
	// for none.
	IndexRepo reference.Named
	// Require is the least trust that an index needs: with layer.Proved, layers
	// without a table of contents are streamed whatever indexes there are, and
	// those with one are refused (ErrNotProved) until it has been proved.
	Require  layer.Trust
	Progress *Progress // may be nil
	Log      *logrus.Entry

	early *Early     // is told how the opening gets on, if not nil
	share *transfers // of a Puller: whose transfers this opening takes part in; nil for none
}

// Image is an opened image: its documents, its merged table and its layers.
type Image struct {
	Manifest *manifest.Image
	Config   *manifest.Config
	Tree     *tree.Tree
	// Resolved is when the registry last said what the reference means.
	Resolved time.Time
	// Local is true if opening asked no registry.
	Local bool

	layers   []*layer.Layer  // parallel to Manifest.Layers
	keys     []digest.Digest // likewise
	closers  []func() error  // what Close undoes, in reverse
	mappings []*flat.Mapping
}

// Open resolves ref and makes its image readable. It returns when every path
// of the image can be looked up; file data stays where it is until it is read.
func Open(ctx context.Context, ref string, o Options) (*Image, error) {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	if o.Platform.OS == "" {
		o.Platform = manifest.DefaultPlatform()
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	r, err := manifest.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	op := &opening{Options: o, docs: &cachedFetcher{from: o.Registry, docs: o.Cache, pull: o.Pull}}
	m, err := op.resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := op.load(ctx, m); err != nil {
		return nil, errors.Join(err, op.abandon(m))
	}
	m.Local = !op.docs.asked.Load() && !op.streamed.Load()
	o.Progress.enter("ready")
	return m, nil
}

// Layers returns the readers of the image's layers, bottom first.
func (m *Image) Layers() []*layer.Layer { return m.layers }

// Key is the name by which the cache has the index ("index") and the data of
// layer i.
func (m *Image) Key(i int) digest.Digest { return m.keys[i] }

// ReadAt reads from the address space of a layer; it is tree.Data.
func (m *Image) ReadAt(ctx context.Context, layer int, p []byte, addr int64) (int, error) {
	return m.layers[layer].ReadAt(ctx, p, addr)
}

// FS returns the image as an io/fs.FS. Reads of its files end with ctx.
func (m *Image) FS(ctx context.Context) iofs.FS { return m.Tree.FS(ctx, m) }

// Close lets go of the image's files. Nothing of the image may be used then.
func (m *Image) Close() error {
	var errs []error
	for _, l := range m.layers {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	for _, c := range m.closers {
		errs = append(errs, c())
	}
	for _, f := range m.mappings {
		errs = append(errs, f.Close())
	}
	m.layers, m.closers, m.mappings = nil, nil, nil
	return errors.Join(errs...)
}

// resolve finds the manifest: by the digest that an earlier resolution left in
// the cache where o.Pull allows it, else by the registry.
func (op *opening) resolve(ctx context.Context, r manifest.Reference) (*Image, error) {
	op.Progress.enter("resolving")
	m := &Image{Resolved: time.Now()}
	ask := r
	if _, pinned := r.Digest(); !pinned && op.Pull != PullAlways {
		d, at, err := op.Cache.Ref(r.String())
		switch {
		case err == nil:
			if ask, err = pin(r, d); err != nil {
				return nil, err
			}
			m.Resolved = at
		case !errors.Is(err, iofs.ErrNotExist):
			return nil, err
		}
	}
	img, err := manifest.Resolve(ctx, op.docs, ask, op.Platform)
	if err != nil {
		return nil, err
	}
	img.Reference = r
	m.Manifest = img
	if op.docs.asked.Load() {
		err = op.Cache.SetRef(r.String(), img.Top.Digest)
	}
	return m, err
}

// pin returns r with its tag replaced by what it was resolved to.
func pin(r manifest.Reference, d digest.Digest) (manifest.Reference, error) {
	return manifest.ParseReference(r.Named().Name() + "@" + d.String())
}

// load fills in config, layers and tree, from the cache as far as it has them.
func (op *opening) load(ctx context.Context, m *Image) error {
	descs := m.Manifest.Layers
	op.progress = op.Progress.start(descs)
	m.layers, m.keys = make([]*layer.Layer, len(descs)), make([]digest.Digest, len(descs))
	indexes := make([]*layer.Index, len(descs))
	if op.early != nil {
		op.early.start(len(descs))
	}

	g, gctx := errgroup.WithContext(ctx)
	op.search = newSearch(gctx, op, m)
	config := make(chan struct{}) // closed when m.Config is set
	g.Go(func() (err error) {
		if m.Config, err = manifest.LoadConfig(gctx, op.docs, m.Manifest); err == nil {
			close(config)
		}
		return err
	})
	for i := range descs {
		g.Go(func() (err error) {
			diffID := func(ctx context.Context) (digest.Digest, error) {
				select {
				case <-config:
					return m.Config.RootFS.DiffIDs[i], nil
				case <-ctx.Done():
					return "", context.Cause(ctx)
				}
			}
			indexes[i], err = op.index(gctx, m, i, diffID)
			if err == nil && op.early != nil {
				err = op.attachEarly(m, i, indexes[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, x := range indexes {
		// The pass that made the index may have been for another manifest.
		if got, want := x.DiffID(), m.Config.RootFS.DiffIDs[i]; got != "" && got != want {
			return fmt.Errorf("layer %s: %w: diffID %s, the config says %s", descs[i].Digest, layer.ErrVerify, got, want)
		}
		if m.layers[i] != nil {
			continue
		}
		if err := op.attach(m, i, x); err != nil {
			return err
		}
	}
	return op.merge(m, indexes)
}

// attach opens the store of layer i and makes its reader.
func (op *opening) attach(m *Image, i int, x *layer.Index) error {
	d := m.Manifest.Layers[i]
	store, err := op.Cache.Store(m.keys[i], x.Info.AddrSize, len(x.Spans))
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	if c, ok := store.(interface{ Close() error }); ok {
		op.mu.Lock()
		m.closers = append(m.closers, c.Close)
		op.mu.Unlock()
	}
	src := op.Registry.Layer(m.Manifest.Reference.Named(), d)
	m.layers[i] = layer.New(x, src, store, layer.Options{Log: op.Log})
	op.progress[i].set("ready")
	return nil
}

// treeKey names the tree of an image, for which layers may be indexed in
// several ways.
func treeKey(m *Image) digest.Digest {
	key, plain := m.Manifest.Desc.Digest.String(), true
	for i, d := range m.Manifest.Layers {
		plain = plain && m.keys[i] == slotOf(d).key
		key += "\n" + m.keys[i].String()
	}
	if plain {
		return m.Manifest.Desc.Digest
	}
	return digest.FromString(key)
}

// merge takes the tree from the cache, or makes it and keeps it there.
func (op *opening) merge(m *Image, indexes []*layer.Index) error {
	key := treeKey(m)
	t, mapped, err := open(op.Cache, "tree", key, tree.Decode)
	if err == nil && t.Fits(indexes) {
		m.Tree = t
		m.mappings = append(m.mappings, mapped)
		return nil
	}
	if err == nil {
		err = errors.Join(flat.ErrVersion, mapped.Close())
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		op.Log.WithError(err).WithField("image", key).Info("building the tree anew")
	}
	op.Progress.enter("merging")
	if t, err = tree.Merge(indexes); err != nil {
		return fmt.Errorf("%s: %w", m.Manifest.Reference, err)
	}
	// The tree is served from the file, which costs no memory of ours.
	if m.Tree, mapped, err = keep(op.Cache, "tree", key, t.Encode(), tree.Decode); err != nil {
		return err
	}
	m.mappings = append(m.mappings, mapped)
	return nil
}
