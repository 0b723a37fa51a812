package layer

import (
	"context"
	"encoding"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	intakeBuffers = 6         // of a pass over a blob
	intakeBuffer  = 128 << 10 // bytes
)

// intake reads a blob ahead of its decoder, and hashes it. Its goroutine ends
// with the blob, its first error, or the group's context.
type intake struct {
	ctx  context.Context //nolint:containedctx // io.Reader has none; it is that of the pass
	body rangeReader
	sum  hash.Hash
	done *atomic.Int64 // bytes read of the blob, for those who watch

	free, full chan []byte
	states     chan hashState

	cur   []byte    // what is left of whole
	whole []byte    // the buffer being decoded
	state hashState // at its end
	err   error     // the source's, once Read has returned it
}

// hashState is what the hash of a blob was after so many bytes of it.
type hashState struct {
	At   int64  `json:"at"`
	Hash []byte `json:"hash"`
}

// newIntake reads what is left of a blob from off on. A hash that was taken
// further than off takes no byte twice.
func newIntake(ctx context.Context, g *errgroup.Group, src Source, from resumption, done *atomic.Int64) (*intake, error) {
	if from.sum == nil {
		return nil, fmt.Errorf("%w: no hash", ErrMalformed)
	}
	in := &intake{
		ctx: ctx, sum: from.sum, done: done,
		free: make(chan []byte, intakeBuffers), full: make(chan []byte, intakeBuffers), states: make(chan hashState, intakeBuffers),
	}
	for range intakeBuffers {
		in.free <- make([]byte, intakeBuffer)
	}
	r, body, err := openRange(ctx, src, from.off, src.Size()-from.off)
	if err != nil {
		return nil, err
	}
	in.body = *r
	done.Store(from.off)
	g.Go(func() error {
		defer close(in.full)
		return closing(body, in.run(from.off, from.hashed))
	})
	return in, nil
}

// run passes buffers on until the blob ends. The source's error is kept for
// Read, which knows what the decoder makes of it.
func (in *intake) run(off, hashed int64) error {
	for {
		var buf []byte
		select {
		case buf = <-in.free:
		case <-in.ctx.Done():
			return context.Cause(in.ctx)
		}
		n, err := io.ReadFull(&in.body, buf[:intakeBuffer])
		fresh := buf[:n]
		fresh = fresh[min(max(hashed-off, 0), int64(n)):]
		in.sum.Write(fresh)
		off += int64(n)
		in.done.Add(int64(n))
		if n > 0 {
			// As many states as buffers fit, so that this never waits.
			in.states <- in.snapshot(max(off, hashed))
			in.full <- buf[:n]
		}
		if err != nil {
			return nil //nolint:nilerr // Read tells it
		}
	}
}

// snapshot is the hash's state after at bytes, for a pass that goes on later.
func (in *intake) snapshot(at int64) hashState {
	m, ok := in.sum.(encoding.BinaryMarshaler)
	if !ok {
		return hashState{At: at}
	}
	state, err := m.MarshalBinary()
	if err != nil {
		return hashState{At: at}
	}
	return hashState{At: at, Hash: state}
}

func (in *intake) Read(p []byte) (int, error) {
	for len(in.cur) == 0 {
		if err := in.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.cur)
	in.cur = in.cur[n:]
	return n, nil
}

func (in *intake) next() error {
	if in.whole != nil {
		in.free <- in.whole
		in.whole = nil
	}
	select {
	case buf, ok := <-in.full:
		if !ok {
			in.err = in.body.err
			return cmpError(in.err, io.EOF)
		}
		in.whole, in.cur, in.state = buf, buf, <-in.states
		return nil
	case <-in.ctx.Done():
		in.err = context.Cause(in.ctx)
		return in.err
	}
}

func cmpError(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// drain reads to the blob's end, so that its digest is known.
func (in *intake) drain() error {
	for {
		in.cur = nil
		if err := in.next(); err == io.EOF { //nolint:errorlint // next returns it bare
			return nil
		} else if err != nil {
			return err
		}
	}
}
