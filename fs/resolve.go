package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/manifest"
)

// resolve finds the manifest: by the digest that an earlier resolution left in
// the cache where op.Pull allows it, else by the registry. What lies on this
// machine may have changed, and is asked each time.
func (op *opening) resolve(ctx context.Context, r manifest.Reference) (m *Image, err error) {
	op.Progress.enter("resolving")
	if _, pinned := r.Digest(); pinned || op.place || op.Pull == PullAlways {
		return op.lookUp(ctx, r, r)
	}
	if _, _, never := op.remembered(r); errors.Is(never, iofs.ErrNotExist) && op.Pull == PullMissing {
		// Of several processes that start at once, one asks.
		unlock, locked := op.Cache.Lock(ctx, digest.FromString("reference\n"+op.refName(r)))
		if locked != nil {
			return nil, locked
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	return op.follow(ctx, r)
}

// follow looks up what r was resolved to earlier, or r itself if it never was.
func (op *opening) follow(ctx context.Context, r manifest.Reference) (*Image, error) {
	ask, at, err := op.remembered(r)
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return op.lookUp(ctx, r, r)
	case err != nil:
		return nil, err
	}
	m, err := op.lookUp(ctx, r, ask)
	if err != nil {
		return nil, err
	}
	m.Resolved = at
	return m, nil
}

// remembered returns what r was resolved to, instead of its tag, and when.
func (op *opening) remembered(r manifest.Reference) (manifest.Reference, time.Time, error) {
	d, at, err := op.Cache.Ref(op.refName(r))
	if err != nil {
		return r, at, err
	}
	pinned, err := manifest.ParseReference(r.Named().Name() + "@" + d.String())
	return pinned, at, err
}

// refName is the name by which the cache remembers what r means: to who asks
// for one schema it may mean something else than to others.
func (o *Options) refName(r manifest.Reference) string {
	if o.Schema == 0 {
		return r.String()
	}
	return fmt.Sprintf("%s schema %d", r, o.Schema)
}

// lookUp reads the manifest of r, which ask names, too.
func (op *opening) lookUp(ctx context.Context, r, ask manifest.Reference) (*Image, error) {
	m := &Image{Resolved: time.Now()}
	var err error
	if m.Manifest, err = manifest.Resolve(ctx, op.docs, ask, op.Platform); err != nil {
		return nil, err
	}
	m.Manifest.Reference = r
	if m.Manifest.Schema1 {
		err = op.keepSchema1(m.Manifest)
		op.Log.WithField("image", r).Warn("its manifest is of Docker schema 1, which is obsolete; signatures in it prove nothing about who made it")
	}
	if !op.place && ask.String() == r.String() && (op.docs.asked.Load() || !op.isKnown(r)) {
		err = errors.Join(err, op.Cache.SetRef(op.refName(r), m.Manifest.Top.Digest))
	}
	return m, err
}

// isKnown reports whether the cache knows r. It need not if r is a digest whose
// documents came with another name.
func (op *opening) isKnown(r manifest.Reference) bool {
	_, _, err := op.Cache.Ref(op.refName(r))
	return !errors.Is(err, iofs.ErrNotExist)
}

// keepSchema1 keeps a manifest by the digest of its payload: a registry, and
// the cache with it, may know it by that of the signed document.
func (op *opening) keepSchema1(img *manifest.Image) error {
	if !op.docs.asked.Load() {
		return nil
	}
	return op.Cache.Write("image/manifest", img.Desc.Digest, img.Raw)
}
