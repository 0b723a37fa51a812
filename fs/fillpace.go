package fs

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/peelfs/peel/internal/priority"
	"github.com/peelfs/peel/layer"
)

// A fill asks for pieces of a blob: short enough that a reader who comes
// meanwhile hardly waits for what the line has of one, and that a capped fill
// does not take seconds' worth at once; long enough that a round trip is little
// beside them.
const (
	minPiece = 64 << 10 // bytes
	maxPiece = 4 << 20  // bytes
	anyPiece = 1 << 20  // bytes, of a line that nobody knows
	// lineShare of what the line carries in a second is in one piece.
	lineShare = 5
	// pieceShare of what the cap allows in a second is in one piece, and four
	// such that the line was too slow for may be caught up with.
	pieceShare = 8
	catchUp    = 4
	// maxYield is how long a range waits for readers in all. Readers of other
	// processes may wait for it, while those of this one wait for theirs.
	maxYield = time.Second
	endless  = time.Duration(math.MaxInt64)
)

// pace holds a fill back.
type pace struct {
	limiter *rate.Limiter // of compressed bytes; nil: as fast as it goes
	piece   int64         // bytes to ask for at once, whatever the line
	traffic *layer.Traffic
}

// newPace allows perSecond bytes a second, any number if it is 0.
func newPace(perSecond int64, t *layer.Traffic) *pace {
	p := &pace{piece: maxPiece, traffic: t}
	if perSecond > 0 {
		p.piece = min(max(perSecond/pieceShare, minPiece), maxPiece)
		p.limiter = rate.NewLimiter(rate.Limit(perSecond), catchUp*int(p.piece))
	}
	return p
}

// size is how much to ask src for at once, bytes.
func (p *pace) size(src layer.Source) int64 {
	g, ok := src.(layer.Gauge)
	if !ok {
		return min(p.piece, anyPiece)
	}
	_, bandwidth := g.Link()
	if bandwidth <= 0 {
		return min(p.piece, anyPiece)
	}
	return min(p.piece, max(bandwidth/lineShare, minPiece))
}

// take returns when the cap allows n bytes, at most a piece; or at once when ctx
// has become more urgent than a fill.
func (p *pace) take(ctx context.Context, n int64) error {
	changed := priority.Changed(ctx)
	if priority.Of(ctx) != priority.Fill {
		return ctx.Err()
	}
	if p.limiter == nil {
		return ctx.Err()
	}
	r := p.limiter.ReserveN(time.Now(), int(n))
	t := time.NewTimer(r.Delay())
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-changed:
		r.Cancel()
		return ctx.Err()
	case <-ctx.Done():
		r.Cancel()
		return context.Cause(ctx)
	}
}

// idle returns when nobody waits for something else than a fill, or so much time
// has passed, or at once when ctx becomes more urgent: who waits then may wait
// for this.
func (p *pace) idle(ctx context.Context, most time.Duration) error {
	changed := priority.Changed(ctx)
	if p.traffic == nil || priority.Of(ctx) != priority.Fill {
		return ctx.Err()
	}
	waiting, cancel := context.WithTimeout(ctx, most)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the wait
		select {
		case <-changed:
			cancel()
		case <-waiting.Done():
		}
	})
	err := p.traffic.Idle(waiting)
	cancel()
	wg.Wait()
	if err != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

type paceKey struct{}

// with returns a context that makes paced sources keep the pace.
func (p *pace) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, paceKey{}, p)
}

// paced is a source that keeps the pace of contexts that have one and are of
// class Fill.
func paced(src layer.Source) layer.Source { return pacedSource{src} }

type pacedSource struct{ layer.Source }

// ReadRange asks for a range piece by piece; but for the whole blob at once, as
// its caller has found that there are no ranges.
func (s pacedSource) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	p, _ := ctx.Value(paceKey{}).(*pace)
	switch {
	case p == nil || n == 0 || priority.Of(ctx) != priority.Fill:
		return s.Source.ReadRange(ctx, off, n)
	case off == 0 && n == s.Size():
		return p.whole(ctx, s.Source)
	}
	return p.open(&pacedBody{ctx: ctx, src: s.Source, at: off, end: off + n, patience: maxYield})
}

// Link is layer.Gauge's.
func (s pacedSource) Link() (roundTrip time.Duration, bandwidth int64) {
	if g, ok := s.Source.(layer.Gauge); ok {
		return g.Link()
	}
	return 0, 0
}

// pieces reads a range of src, n > 0, by requests of its own for each piece.
func (p *pace) pieces(ctx context.Context, src layer.Source, off, n int64) (io.ReadCloser, error) {
	return p.open(&pacedBody{ctx: ctx, src: src, at: off, end: off + n, patience: endless})
}

func (p *pace) open(b *pacedBody) (io.ReadCloser, error) {
	b.pace = p
	if err := b.next(); err != nil {
		return nil, err
	}
	return b, nil
}

// whole reads all of src by one request.
func (p *pace) whole(ctx context.Context, src layer.Source) (io.ReadCloser, error) {
	body, err := src.ReadRange(ctx, 0, src.Size())
	if err != nil {
		return nil, err
	}
	return reading{pacedReader{ctx, body, p}, body}, nil
}

// pacedBody reads a range of a blob piece by piece.
type pacedBody struct {
	ctx      context.Context //nolint:containedctx // of the one ReadRange that it is the body of
	src      layer.Source
	pace     *pace
	patience time.Duration // that is left to wait for readers

	at, end int64         // of the blob, what has not been asked for
	body    io.ReadCloser // of the piece that has
	left    int64         // bytes of it
}

// next asks for the next piece, or for the rest if somebody turned out to wait.
func (b *pacedBody) next() (err error) {
	n := min(b.pace.size(b.src), b.end-b.at)
	if err := b.pace.take(b.ctx, n); err != nil {
		return err
	}
	if err := b.yield(); err != nil {
		return err
	}
	if priority.Of(b.ctx) != priority.Fill {
		n = b.end - b.at
	}
	if b.body, err = b.src.ReadRange(b.ctx, b.at, n); err != nil {
		return err
	}
	b.at, b.left = b.at+n, n
	return nil
}

// yield lets readers go first as long as it has the patience.
func (b *pacedBody) yield() error {
	if b.patience <= 0 {
		return b.ctx.Err()
	}
	began := time.Now()
	err := b.pace.idle(b.ctx, b.patience)
	b.patience -= time.Since(began)
	return err
}

func (b *pacedBody) Read(p []byte) (int, error) {
	for b.left == 0 {
		if err := b.Close(); err != nil {
			return 0, err
		}
		if b.at == b.end {
			return 0, io.EOF
		}
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	if err := b.yield(); err != nil {
		return 0, err
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if b.left == 0 {
		err = nil // the end of a piece is not that of the range
	}
	return n, err
}

func (b *pacedBody) Close() error {
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}

// pacedReader reads what was asked for as a whole.
type pacedReader struct {
	ctx  context.Context //nolint:containedctx // as pacedBody's
	body io.Reader
	pace *pace
}

func (r pacedReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p[:min(len(p), minPiece)])
	if terr := r.pace.take(r.ctx, int64(n)); terr != nil {
		return n, terr
	}
	if ierr := r.pace.idle(r.ctx, endless); ierr != nil {
		return n, ierr
	}
	return n, err
}
