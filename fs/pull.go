package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// maxPulls is how often a pull is begun; see worthAgain.
const maxPulls = 3

// Puller makes whole images local. Its methods may be called concurrently:
// equal layers of several images are transferred once, as they are if other
// processes pull or mount them with the same cache. What a pull that ended early
// has transferred, the next one need not.
type Puller struct {
	o Options
}

// NewPuller returns a puller that opens images as o says, but always asks what
// a tag means. Close it.
func NewPuller(o Options) *Puller {
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if o.Traffic == nil {
		o.Traffic = layer.NewTraffic(layer.TrafficOptions{})
	}
	o.Pull, o.share = PullAlways, newTransfers(o.Log)
	return &Puller{o: o}
}

// Close cancels what is under way and waits for its end.
func (p *Puller) Close() { p.o.share.close() }

// Pulled is an image all bytes of which are in the cache.
type Pulled struct {
	Reference string          `json:"reference"`
	Digest    digest.Digest   `json:"digest"` // of what the reference names: an index or a manifest
	New       bool            `json:"new"`    // something was fetched, or the reference meant something else before
	Bytes     int64           `json:"bytes"`  // compressed bytes of layers that were fetched, be it for several images
	Image     *manifest.Image `json:"-"`
}

// Pull makes the image that ref names local, be it one of a registry or one
// that lies on this machine. progress may be nil; see [LayerProgress.Transfer].
func (p *Puller) Pull(ctx context.Context, ref string, progress *Progress) (*Pulled, error) {
	if progress == nil {
		progress = &Progress{}
	}
	before, err := p.known(ref)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	var count tally
	for n := 1; ; n++ {
		out, err := p.pull(ctx, ref, progress, &count)
		if err == nil {
			out.Bytes = count.fetched
			place := out.Image.Reference.Transport() != ""
			out.New = out.Bytes > 0 || !place && before != out.Digest
			progress.enter("ready")
			return out, nil
		}
		if n == maxPulls || ctx.Err() != nil || !worthAgain(err) {
			return nil, err
		}
		p.o.Log.WithError(err).WithField("image", ref).Warn("pulling the image again")
		progress.forget()
	}
}

// worthAgain reports whether a pull that failed may end otherwise: a document
// was damaged on its way, or somebody removed the image meanwhile.
func worthAgain(err error) bool {
	var tried *exhausted
	return errors.Is(err, iofs.ErrNotExist) || errdefs.IsDataLoss(err) && !errors.As(err, &tried)
}

func (p *Puller) pull(ctx context.Context, ref string, progress *Progress, count *tally) (_ *Pulled, err error) {
	o := p.o
	o.Progress = progress
	m, err := Open(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	progress.enter("pulling")
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range progress.all() {
		count.add(l)
		g.Go(func() error { return p.fill(gctx, m, i, l) })
	}
	err = g.Wait()
	for _, l := range progress.all() {
		count.add(l)
	}
	if err != nil {
		return nil, err
	}
	if m.Manifest.Reference.Transport() != "" {
		err = p.adopt(ctx, m)
	} else {
		_, err = p.known(ref)
	}
	return &Pulled{Reference: m.Manifest.Reference.String(), Digest: m.Manifest.Top.Digest, Image: m.Manifest}, err
}

// tally sums up what layers have fetched. An image may have one twice.
type tally struct {
	seen    []*meter
	fetched int64
}

func (t *tally) add(l *layerProgress) {
	if m := l.meter.Load(); !slices.Contains(t.seen, m) {
		t.seen = append(t.seen, m)
		t.fetched += m.fetched.Load()
	}
}

// known is what the cache remembers of ref: io/fs.ErrNotExist if nothing.
func (p *Puller) known(ref string) (digest.Digest, error) {
	r, err := manifest.ParseReference(ref)
	if err != nil {
		return "", err
	}
	d, _, err := p.o.Cache.Ref(p.o.refName(r))
	return d, err
}

// adopt keeps the documents of an image that lies on this machine, which an
// opening leaves where they are.
func (p *Puller) adopt(ctx context.Context, m *Image) error {
	img := m.Manifest
	if img.Top.Digest != img.Desc.Digest {
		ref, err := reference.WithDigest(reference.TrimNamed(img.Reference.Named()), img.Top.Digest)
		if err != nil {
			return err
		}
		_, raw, err := p.o.Registry.Manifest(ctx, ref)
		if err == nil {
			err = p.keep("image/manifest", img.Top, raw)
		}
		if err != nil {
			return err
		}
	}
	err := p.keep("image/manifest", img.Desc, img.Raw)
	if !img.Artifact && err == nil {
		err = p.keep("image/config", img.Manifest.Config, m.Config.Raw)
	}
	if !img.Schema1 || err != nil {
		return err
	}
	for _, d := range img.Layers { // whose sizes that manifest does not tell
		if err := p.o.Cache.Write("image/sizes", d.Digest, strconv.AppendInt(nil, d.Size, 10)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Puller) keep(kind string, d ocispec.Descriptor, raw []byte) error {
	if err := verify(kind, raw, d); err != nil {
		return fmt.Errorf("%s %s: %w", kind, d.Digest, err)
	}
	return p.o.Cache.Write(kind, d.Digest, raw)
}

// fill makes layer i complete.
func (p *Puller) fill(ctx context.Context, m *Image, i int, l *layerProgress) error {
	streamed := *l.meter.Load().state.Load() == TransferComplete
	key := transferKey{slot: m.keys[i], fill: true}
	b := blob{key: m.keys[i], desc: m.Manifest.Layers[i], ref: m.Manifest.Reference.Named()}
	err := p.o.share.join(ctx, key, l, func(ctx context.Context, t *meter) error { return p.complete(ctx, b, t) })
	if err != nil {
		return err
	}
	filled := l.meter.Load().fetched.Load() > 0
	l.complete()
	if !streamed && !filled {
		l.set(TransferExists)
	}
	return nil
}

// blob is a layer whose index the cache has under key.
type blob struct {
	key  digest.Digest
	desc ocispec.Descriptor
	ref  reference.Named
}

// complete fetches what the cache lacks of a layer. It uses nothing of an
// Image, which may be closed before.
func (p *Puller) complete(ctx context.Context, b blob, t *meter) (err error) {
	x, mapped, err := open(p.o.Cache, "index", b.key, layer.Decode)
	if err != nil {
		return fmt.Errorf("layer %s: %w", b.desc.Digest, err)
	}
	defer func() { err = errors.Join(err, mapped.Close()) }()
	store, err := p.o.Cache.Store(b.key, x.Info.AddrSize, len(x.Spans))
	if err != nil {
		return fmt.Errorf("layer %s: %w", b.desc.Digest, err)
	}
	if c, ok := store.(interface{ Close() error }); ok {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	l := layer.New(x, t.count(p.o.Registry.Layer(b.ref, b.desc)), store, layer.Options{
		Log: p.o.Log, Traffic: p.o.Traffic, Donors: newDonors(p.o.Cache, p.o.Log).of(b.key),
	})
	defer func() { err = errors.Join(err, l.Close()) }()
	if l.Present() < x.Info.AddrSize {
		t.set(TransferDownloading)
	}
	return l.Fill(ctx, &t.done)
}
