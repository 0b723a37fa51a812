package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/internal/sentinel"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// ErrNotProved: Options.Require asks for more than somebody's claim.
var ErrNotProved = sentinel.New("not proved", errdefs.ErrFailedPrecondition)

// opening is one Open under way.
type opening struct {
	Options
	place     bool // the image lies on this machine
	docs      *cachedFetcher
	search    *search
	progress  []*layerProgress
	donors    *donors     // nil if there are none
	streamed  atomic.Bool // some layer was asked for by this opening
	rangeless atomic.Bool // the registry has refused a byte range

	unpacking sync.Mutex // held while somebody's index is made one of ours

	mu sync.Mutex // guards the Image's mappings and closers while layers are indexed in parallel
}

// newOpening prepares to open r as o says. Indexes of what lies on this machine
// are looked for where it lies, if at all: to read it is quicker than to ask.
func newOpening(o Options, r manifest.Reference) *opening {
	op := &opening{Options: o, place: r.Transport() != ""}
	if op.place {
		op.IndexRepo = nil
	}
	op.donors = newDonors(o.Cache, o.Log)
	op.docs = &cachedFetcher{from: o.Registry, docs: o.Cache, pull: o.Pull, local: op.place}
	return op
}

// slot names a layer's index and data in the cache. A blob that somebody claims
// something of is kept under both digests: what one image names must never be
// shown by another that names something else for the same blob, nor take the
// place of what was proved.
type slot struct {
	key   digest.Digest
	claim digest.Digest // of the table of contents or index; "" for what was streamed
}

// slotOf is that of the table of contents that the descriptor of layer i names,
// or else that of the blob alone; one that is a file has another index for each
// of its names.
func slotOf(m *manifest.Image, i int) slot {
	d := m.Layers[i]
	if name := m.FileName(i); name != "" {
		return slot{key: digest.FromString(d.Digest.String() + "\nfile\n" + name)}
	}
	if toc, ok := layer.TOCDigest(d); ok && !m.DiffIDsUnknown() {
		return slot{key: digest.FromString(d.Digest.String() + "\n" + toc.String()), claim: toc}
	}
	return slot{key: d.Digest}
}

// diffIDFunc waits until the digest of a layer's tar is known.
type diffIDFunc func(context.Context) (digest.Digest, error)

// open maps a document of the cache and decodes it. The caller closes the
// mapping when the decoded view is no longer used.
func open[T any](c Docs, kind string, key digest.Digest, decode func([]byte) (T, error)) (T, *flat.Mapping, error) {
	var none T
	m, err := c.Map(kind, key)
	if err != nil {
		return none, nil, err
	}
	v, err := decode(m.Bytes())
	if err != nil {
		return none, nil, errors.Join(fmt.Errorf("%s %s: %w", kind, key, err), m.Close())
	}
	return v, m, nil
}

// keep stores an encoded document and opens it as open does.
func keep[T any](c Docs, kind string, key digest.Digest, data []byte, decode func([]byte) (T, error)) (T, *flat.Mapping, error) {
	if err := c.Write(kind, key, data); err != nil {
		var none T
		return none, nil, err
	}
	return open(c, kind, key, decode)
}

// cachedIndex returns the index of layer i that slot s of the cache has, if it
// is one of the blob and the claim.
func (op *opening) cachedIndex(m *Image, i int, s slot) (*layer.Index, error) {
	d := m.Manifest.Layers[i]
	x, mapped, err := open(op.Cache, "index", s.key, layer.Decode)
	if err != nil {
		return nil, err
	}
	if x.Blob() != d.Digest || x.Claim() != "" && x.Claim() != s.claim {
		return nil, errors.Join(fmt.Errorf("layer %s: %w: an index of another layer", d.Digest, flat.ErrCorrupt), mapped.Close())
	}
	if !op.accepts(x) {
		err := fmt.Errorf("layer %s: %w: it is only claimed by %s %s", d.Digest, ErrNotProved, x.Origin(), x.Claim())
		return nil, errors.Join(err, mapped.Close())
	}
	op.own(m, i, s, mapped)
	return x, nil
}

// accepts reports whether the index may be used.
func (op *opening) accepts(x *layer.Index) bool { return x.Info.Trust >= op.Require }

// keepIndex stores the index of layer i in slot s and returns it as the cache
// has it: served from the file, it costs no memory of ours.
func (op *opening) keepIndex(m *Image, i int, s slot, x *layer.Index) (*layer.Index, error) {
	x, mapped, err := keep(op.Cache, "index", s.key, x.Encode(), layer.Decode)
	if err != nil {
		return nil, err
	}
	op.own(m, i, s, mapped)
	return x, nil
}

// own notes that layer i is in slot s, and its index a view of mapped.
func (op *opening) own(m *Image, i int, s slot, mapped *flat.Mapping) {
	op.mu.Lock()
	defer op.mu.Unlock()
	m.keys[i] = s.key
	m.mappings = append(m.mappings, mapped)
}

// index returns the index of layer i: from the cache, without reading the layer
// whole if that is possible, or else by doing so once diffID is known.
func (op *opening) index(ctx context.Context, m *Image, i int, diffID diffIDFunc) (*layer.Index, error) {
	d := m.Manifest.Layers[i]
	p := plain{slot: slotOf(m.Manifest, i), file: m.Manifest.FileName(i), diffID: diffID}
	x, err := op.cachedIndex(m, i, p.slot)
	if err == nil || errors.Is(err, ErrNotProved) {
		return x, err
	}
	op.anew(d, err)
	p.src = op.Registry.Layer(m.Manifest.Reference.Named(), d)
	switch {
	case p.file != "":
		p.reason = "it is a file, not a tar"
	case m.Manifest.Artifact:
		p.reason = "layers of artifacts are read whole"
	case m.Manifest.Schema1:
		p.reason = "manifests of Docker schema 1 know no tables of contents"
	default:
		if x, p.reason, err = op.lazily(ctx, m, i, p); x != nil || err != nil {
			return x, err
		}
	}
	op.ask(i)
	if _, ok := op.here(p.src); ok {
		return op.survey(ctx, m, i, p)
	}
	return op.stream(ctx, m, i, p)
}

// lazily returns the index of layer i by its table of contents, or one that
// somebody has made; or nil, and why the layer has to be read whole.
func (op *opening) lazily(ctx context.Context, m *Image, i int, p plain) (x *layer.Index, reason string, err error) {
	x, err = op.byTable(ctx, m, i, p)
	switch {
	case err == nil:
		return x, "", nil
	case errors.Is(err, layer.ErrPlain):
		reason = err.Error()
	case errdefs.IsNotImplemented(err):
		op.rangeless.Store(true)
		return nil, refused + ": " + err.Error(), nil
	default:
		return nil, "", err
	}
	if p.slot.claim != "" {
		return nil, reason, nil
	}
	if op.rangeless.Load() {
		return nil, refused + "; " + reason, nil
	}
	x, why, err := op.search.index(ctx, i)
	if why != "" {
		reason = why + "; " + reason
	}
	return x, reason, err
}

// refused is in the reason of a layer that might be read lazily elsewhere.
const refused = "the registry refuses byte ranges"

// byTable reads the index of layer i from its table of contents. Of several
// processes, one does.
func (op *opening) byTable(ctx context.Context, m *Image, i int, p plain) (x *layer.Index, err error) {
	d := m.Manifest.Layers[i]
	if p.slot.claim == "" {
		return layer.ReadIndex(ctx, p.src, d) // tells why there is none, without a request
	}
	unlock, err := op.Cache.Lock(ctx, p.slot.key)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if x, err := op.cachedIndex(m, i, p.slot); err == nil || errors.Is(err, ErrNotProved) {
		return x, err
	}
	op.ask(i)
	if x, err = layer.ReadIndex(ctx, p.src, d); err != nil {
		return nil, err
	}
	if !op.accepts(x) {
		return nil, fmt.Errorf("layer %s: %w: it is only claimed by %s %s", d.Digest, ErrNotProved, x.Origin(), x.Claim())
	}
	return op.keepIndex(m, i, p.slot, x)
}

// survey reads layer i whole where it lies, for its index alone. Of several
// processes, one does.
func (op *opening) survey(ctx context.Context, m *Image, i int, p plain) (x *layer.Index, err error) {
	unlock, err := op.Cache.Lock(ctx, p.slot.key)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", m.Manifest.Layers[i].Digest, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if x, err := op.cachedIndex(m, i, p.slot); err == nil {
		return x, nil
	}
	p.unstaged = true
	return op.stream(ctx, m, i, p)
}

// ask notes that layer i is asked for.
func (op *opening) ask(i int) {
	op.streamed.Store(true)
	op.progress[i].set("indexing")
}

// anew tells that what the cache has of a layer is of no use.
func (op *opening) anew(d ocispec.Descriptor, err error) {
	if !errors.Is(err, iofs.ErrNotExist) {
		op.Log.WithError(err).WithField("layer", d.Digest).Info("indexing the layer anew")
	}
}
