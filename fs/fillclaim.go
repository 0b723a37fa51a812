package fs

import (
	"context"
	"errors"
	"io"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/layer"
)

// fillBuffer is how much of a blob is copied at a time, bytes.
const fillBuffer = 128 << 10

// prove has layer i pass by whole, and keeps its index as proved.
func (f *fill) prove(ctx context.Context, i int) (err error) {
	d := f.m.Manifest.Layers[i]
	s, err := openSpool(f.Spools, d.Digest, d.Size)
	if err != nil {
		return layerError(d.Digest, err)
	}
	c := &claimFill{fill: f, i: i, x: f.m.layers[i].Index(), spool: s, at: f.Progress.at(i)}
	// What is here goes on being of use unless the whole of it is, or is known
	// to be wrong, or the disk is full of it.
	defer func() {
		if err == nil || isFull(err) || isWrong(err) {
			err = errors.Join(err, s.discard())
		} else {
			err = errors.Join(err, s.close())
		}
	}()
	if err := c.open(); err != nil {
		return layerError(d.Digest, err)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	err = c.run(ctx)
	if isWrong(err) && s.kept > 0 {
		// The disk or a crash may be to blame, not the registry.
		f.Log.WithError(err).Info("fetching the layer anew from its beginning")
		if err = s.rewind(); err == nil {
			err = c.run(ctx)
		}
	}
	return err
}

// isWrong reports whether a layer is another than it should be.
func isWrong(err error) bool {
	return errors.Is(err, layer.ErrVerify) || errors.Is(err, layer.ErrMalformed)
}

// claimFill is a claimed layer that passes by.
type claimFill struct {
	*fill
	i     int
	x     *layer.Index
	at    *fillLayer
	spool *spool
	store layer.Store
	// local reads the spool, and puts into the store what it reads.
	local  *layer.Layer
	landed int  // spans up to this one have landed, or need not
	lost   bool // one could not: the end will tell why
}

func (c *claimFill) open() (err error) {
	if c.store, err = c.Cache.Store(c.m.keys[c.i], c.x.Info.AddrSize, len(c.x.Spans)); err != nil {
		return err
	}
	// It holds claims on spans, which readers wait for: nothing here may wait for
	// these readers meanwhile.
	c.local = layer.New(c.x, c.spool, c.store, layer.Options{
		Traffic: layer.NewTraffic(layer.TrafficOptions{NoGuess: true}),
	})
	return nil
}

func (c *claimFill) close() error {
	err := c.local.Close()
	if s, ok := c.store.(io.Closer); ok {
		err = errors.Join(err, s.Close())
	}
	return err
}

// run fetches what the spool lacks, proves the whole and stores what has not
// landed on the way.
func (c *claimFill) run(ctx context.Context) error {
	c.landed, c.lost = 0, false
	if err := c.fetch(ctx); err != nil {
		return layerError(c.at.digest, err)
	}
	c.at.set(FillProving)
	diffID := c.m.diffID(c.i)
	p := Proof{Index: c.x, Layer: c.m.Manifest.Layers[c.i], DiffID: diffID, Dir: c.Tmp}
	blob := gentle{c.spool, c.pace}
	if err := p.compare(ctx, blob, blob); err != nil {
		return err
	}
	if err := c.pace.idle(ctx, endless); err != nil {
		return err
	}
	if err := c.local.Fill(ctx, nil); err != nil {
		return err
	}
	return c.Cache.Write("index", c.m.keys[c.i], c.x.AsProved(diffID).Encode())
}

// fetch reads the blob from where the spool ends.
func (c *claimFill) fetch(ctx context.Context) error {
	c.at.done.Store(c.spool.n)
	if err := c.land(ctx); err != nil || c.spool.n == c.spool.size {
		return err
	}
	src := c.Registry.Layer(c.m.Manifest.Reference.Named(), c.m.Manifest.Layers[c.i])
	body, err := c.pace.pieces(ctx, src, c.spool.n, c.spool.size-c.spool.n)
	if err == nil {
		err = c.copy(ctx, body)
	}
	if !errdefs.IsNotImplemented(err) {
		return err
	}
	// There are no ranges.
	if err := c.spool.rewind(); err != nil {
		return err
	}
	if body, err = c.pace.whole(ctx, src); err != nil {
		return err
	}
	return c.copy(ctx, body)
}

// copy takes over what body yields to the blob's end.
func (c *claimFill) copy(ctx context.Context, body io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, body.Close()) }()
	buf := make([]byte, fillBuffer)
	for c.spool.n < c.spool.size {
		n, err := body.Read(buf)
		c.at.fetched.Add(int64(n))
		if _, err := c.spool.Write(buf[:n]); err != nil {
			return err
		}
		c.at.done.Store(c.spool.n)
		if err := c.land(ctx); err != nil {
			return err
		}
		if err == io.EOF && c.spool.n < c.spool.size {
			return io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// land stores those spans that the spool has and the store lacks. One that is
// wrong is as good as not there: the digest of the whole will tell.
func (c *claimFill) land(ctx context.Context) error {
	if c.x.Resident() != "" {
		return ctx.Err() // none can be read by itself
	}
	var first [1]byte
	for ; c.landed < len(c.x.Spans) && !c.lost; c.landed++ {
		s := &c.x.Spans[c.landed]
		if s.Off+s.CLen > c.spool.n {
			break
		}
		if c.store.Has(c.landed) {
			continue
		}
		if err := c.pace.idle(ctx, endless); err != nil {
			return err
		}
		_, err := c.local.ReadAt(ctx, first[:], s.Addr)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.lost = err != nil
	}
	return nil
}

// gentle is a source on this machine whose readers use the processor when
// nobody else needs it.
type gentle struct {
	layer.Source
	pace *pace
}

func (g gentle) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	body, err := g.Source.ReadRange(ctx, off, n)
	if err != nil {
		return nil, err
	}
	return reading{gentleReader{ctx, body, g.pace}, body}, nil
}

type gentleReader struct {
	ctx  context.Context //nolint:containedctx // of the one range that it reads
	body io.Reader
	pace *pace
}

func (r gentleReader) Read(p []byte) (int, error) {
	if err := r.pace.idle(r.ctx, endless); err != nil {
		return 0, err
	}
	return r.body.Read(p)
}
