package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// Registry is where images come from: registries, or a place on this machine.
// One that is a manifest.Sizer too can have images of Docker schema 1.
type Registry interface {
	manifest.Fetcher
	// Layer returns the blob that d describes, without I/O. One that is an
	// io.ReaderAt lies on this machine, and is read there.
	Layer(ref reference.Named, d ocispec.Descriptor) layer.Source
	// Referrers lists what is attached to the manifest d in the repository of
	// ref: nothing, if the registry knows of nothing.
	Referrers(ctx context.Context, ref reference.Named, d digest.Digest) ([]ocispec.Descriptor, error)
}

// Docs keeps documents by kind ("image/manifest", "image/config",
// "image/sizes", "index", "claims", "tree", "profile") and digest. Read and Map report
// io/fs.ErrNotExist for what it has not.
type Docs interface {
	Read(kind string, key digest.Digest) ([]byte, error)
	Map(kind string, key digest.Digest) (*flat.Mapping, error)
	Write(kind string, key digest.Digest, data []byte) error
	// Lock waits until nobody else, of any process, holds the lock of key.
	Lock(ctx context.Context, key digest.Digest) (unlock func() error, err error)
}

// Refs remembers what a reference resolved to, and when, and when it was last
// used.
type Refs interface {
	Ref(name string) (digest.Digest, time.Time, error)
	SetRef(name string, d digest.Digest) error
	TouchRef(name string) error
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
// A digest never needs to be; what lies on this machine is looked at each time.
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
	Require layer.Trust
	// Schema says which manifests Registry asks for: 1, those of Docker schema
	// 1; 2, newer ones; 0, schema 1 if there is nothing else. The cache
	// remembers for each what a tag means.
	Schema   int
	Progress *Progress // may be nil
	Log      *logrus.Entry
	// Traffic is shared by the layers of all images of a process; nil: each
	// image has its own.
	Traffic *layer.Traffic
	// Profile is looked for while the image is opened; nil: it is not. See
	// Image.Anticipate.
	Profile *ProfileSearch

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
	if o.Traffic == nil {
		o.Traffic = layer.NewTraffic(layer.TrafficOptions{})
	}
	r, err := manifest.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	op := newOpening(o, r)
	m, err := op.resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := op.load(ctx, m); err != nil {
		return nil, errors.Join(err, op.abandon(m))
	}
	if err := o.Cache.TouchRef(o.refName(r)); err != nil {
		o.Log.WithError(err).WithField("image", r).Warn("when the image was last used is not known")
	}
	m.Local = op.place || !op.docs.asked.Load() && !op.streamed.Load()
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
