package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

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
					return m.diffID(i), nil
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
	if err := op.complete(m, indexes); err != nil {
		return err
	}
	for i, x := range indexes {
		if m.layers[i] != nil {
			continue
		}
		if err := op.attach(m, i, x); err != nil {
			return err
		}
	}
	return op.merge(m, indexes)
}

// diffID is the digest of layer i's tar; "" if nobody says it beforehand.
func (m *Image) diffID(i int) digest.Digest {
	if m.Manifest.DiffIDsUnknown() {
		return ""
	}
	return m.Config.RootFS.DiffIDs[i]
}

// complete compares the layers' digests with the config, or completes the
// config by them.
func (op *opening) complete(m *Image, indexes []*layer.Index) (err error) {
	if m.Manifest.DiffIDsUnknown() {
		diffIDs := make([]digest.Digest, len(indexes))
		for i, x := range indexes {
			diffIDs[i] = x.DiffID()
		}
		if m.Config, err = manifest.CompleteConfig(m.Manifest, diffIDs); err != nil || op.place {
			return err
		}
		if m.Manifest.Schema1 {
			err = op.Cache.Write("image/config", m.Manifest.Manifest.Config.Digest, m.Config.Raw)
		}
		return errors.Join(err, op.docs.keepSizes())
	}
	for i, x := range indexes {
		// The pass that made the index may have been for another manifest.
		if got, want := x.DiffID(), m.diffID(i); got != "" && got != want {
			return fmt.Errorf("layer %s: %w: diffID %s, the config says %s", m.Manifest.Layers[i].Digest, layer.ErrVerify, got, want)
		}
	}
	return nil
}

// attach makes the reader of layer i.
func (op *opening) attach(m *Image, i int, x *layer.Index) error {
	d := m.Manifest.Layers[i]
	src := op.Registry.Layer(m.Manifest.Reference.Named(), d)
	store, err := op.store(m, i, x, src)
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	m.layers[i] = layer.New(x, paced(src), store, layer.Options{Log: op.Log, Traffic: op.Traffic, Donors: op.donors.of(m.keys[i])})
	op.progress[i].set("ready")
	return nil
}

// store returns what has the data of layer i: the cache, or the blob itself if
// that lies on this machine, can be read as it is and is not in the cache.
func (op *opening) store(m *Image, i int, x *layer.Index, src layer.Source) (layer.Store, error) {
	store, err := op.Cache.Store(m.keys[i], x.Info.AddrSize, len(x.Spans))
	if err != nil {
		return nil, err
	}
	c, closes := store.(io.Closer)
	if at, ok := op.here(src); ok && !complete(store, len(x.Spans)) {
		if in, ok := layer.InPlace(x, at); ok {
			if closes {
				err = c.Close()
			}
			return in, err
		}
	}
	if closes {
		op.mu.Lock()
		m.closers = append(m.closers, c.Close)
		op.mu.Unlock()
	}
	return store, nil
}

// here returns a blob that is to be read where it lies.
func (op *opening) here(src layer.Source) (io.ReaderAt, bool) {
	at, ok := src.(io.ReaderAt)
	return at, ok && op.share == nil
}

// complete reports whether a store has all spans.
func complete(s layer.Store, spans int) bool {
	for i := range spans {
		if !s.Has(i) {
			return false
		}
	}
	return true
}

// treeKey names the tree of an image, for which layers may be indexed in
// several ways.
func treeKey(m *Image) digest.Digest {
	key, plain := m.Manifest.Desc.Digest.String(), true
	for i := range m.Manifest.Layers {
		plain = plain && m.keys[i] == slotOf(m.Manifest, i).key
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
