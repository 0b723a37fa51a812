package fs

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/priority"
	"github.com/peelfs/peel/layer"
)

// Bounds of the wait before a layer is gone on with that could not be had.
const (
	firstFillWait = 10 * time.Second
	maxFillWait   = 5 * time.Minute
)

// FillOptions say how to fill an image.
type FillOptions struct {
	Registry Registry // that the image was opened from
	Cache    Cache    // likewise
	// Spools is the folder for blobs that are on their way, on the disk of the
	// cache. They outlive their fill, be it killed, for a week.
	Spools string
	Tmp    string         // folder for temporary files: the tar of one layer at a time
	Rate   int64          // compressed bytes a second from the network; 0: as many as there are
	Yield  *layer.Traffic // whose demand reads come first; nil: nobody's
	// Progress is told how the layers get on; it may be nil.
	Progress *FillProgress
	Log      *logrus.Entry
}

// Fill makes the image whole while nobody waits for anything else: all spans
// present, and all indexes proved, which the cache then has as such. It goes on
// where an earlier one ended, of whatever process.
//
// Layers come one after the other, the one most read from so far first, else
// bottom up. What is missing of a layer that is proved is fetched. A claimed one
// is fetched from its first byte to its last, as only the whole proves its
// digest; its missing spans are stored as they pass. What can be tried again later
// is: the registry being away. A layer that turns out to be another than claimed
// is logged and left as it is, and so are those that cannot be had. A full disk
// ends the fill. The error is what was logged, or why ctx ended.
//
// An image that lies on this machine is read where it lies; Fill does nothing.
func (m *Image) Fill(ctx context.Context, o FillOptions) error {
	if m.Manifest.Reference.Transport() != "" {
		return nil
	}
	if o.Progress == nil {
		o.Progress = &FillProgress{}
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	f := &fill{FillOptions: o, m: m, pace: newPace(o.Rate, o.Yield)}
	if err := sweepSpools(o.Spools, time.Now().Add(-staleSpool)); err != nil {
		o.Log.WithError(err).Warn("cannot remove what was left of earlier fills")
	}
	return f.run(priority.With(f.pace.with(ctx), priority.Fill))
}

// fill is a Fill under way.
type fill struct {
	FillOptions
	m    *Image
	pace *pace
}

func (f *fill) run(ctx context.Context) error {
	f.Progress.start(f.m)
	var errs []error
	for left := f.distinct(); len(left) > 0; {
		k := f.mostUsed(left)
		i := left[k]
		left = slices.Delete(left, k, k+1)
		err := f.patiently(ctx, i)
		f.Progress.ended(i, err)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isFull(err):
			f.Log.WithError(err).Warn("no space to fetch the rest of the image; giving up")
			return err
		case err != nil:
			f.Log.WithError(err).Warn("a layer cannot be made whole")
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		f.Log.WithField("digest", f.m.Manifest.Desc.Digest).Info("all of the image is here, and proved")
	}
	return errors.Join(errs...)
}

// distinct returns the layers, bottom first; an image may have one twice.
func (f *fill) distinct() []int {
	var out []int
	seen := map[digest.Digest]bool{}
	for i, key := range f.m.keys {
		if !seen[key] {
			out = append(out, i)
		}
		seen[key] = true
	}
	return out
}

// mostUsed returns which of some layers most has been read from.
func (f *fill) mostUsed(layers []int) (k int) {
	most := int64(0)
	for n, i := range layers {
		if used := f.m.layers[i].Stats().Touched; used > most {
			k, most = n, used
		}
	}
	return k
}

// patiently fills layer i, and waits as long as its source is away.
func (f *fill) patiently(ctx context.Context, i int) error {
	for wait := firstFillWait; ; wait = min(2*wait, maxFillWait) {
		err := f.layer(ctx, i)
		if ctx.Err() != nil || !errdefs.IsUnavailable(err) && !errdefs.IsDeadlineExceeded(err) {
			return err
		}
		if wait == firstFillWait {
			f.Log.WithError(err).Info("fetching the rest of the image later")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// layer fills layer i once.
func (f *fill) layer(ctx context.Context, i int) error {
	l, at := f.m.layers[i], f.Progress.at(i)
	at.set(FillFetching)
	if l.Index().Info.Trust != layer.Proved {
		if err := f.believe(ctx, i); err != nil {
			return err
		}
	}
	at.proved.Store(true)
	return l.Fill(ctx, &at.done)
}

// believe sees to it that the index of layer i is proved. Of several processes
// that have the blob, it passes by one.
func (f *fill) believe(ctx context.Context, i int) (err error) {
	d := f.m.Manifest.Layers[i].Digest
	unlock, err := f.Cache.Lock(ctx, digest.FromString("fill\n"+d.String()))
	if err != nil {
		return layerError(d, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if f.isProved(i) {
		return nil
	}
	return f.prove(ctx, i)
}

// isProved reports whether the cache has the index of layer i as proved by now.
func (f *fill) isProved(i int) bool {
	x, mapped, err := open(f.Cache, "index", f.m.keys[i], layer.Decode)
	if err != nil {
		return false
	}
	old := f.m.layers[i].Index()
	ok := x.Blob() == old.Blob() && x.Claim() == old.Claim() && x.Info.Trust == layer.Proved
	return mapped.Close() == nil && ok
}

// isFull reports whether a disk is.
func isFull(err error) bool {
	return errdefs.IsResourceExhausted(err) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
