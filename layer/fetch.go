package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
)

const (
	maxMemory   = 64 << 20  // bytes of a layer's spans on their way, a single longer one apart
	maxRequests = 4         // requests that one read has under way
	maxCLen     = 128 << 20 // bytes of a span in the blob
	spanCost    = 4 << 10   // bytes that a span on its way takes beside its data
)

// deliver hands a span's verified bytes, or why there are none, to those who
// wait for it. It is called once per span.
type deliver func(span int, data []byte, err error)

// fetch is the flight.Work of a layer: it delivers the claimed spans from the
// store or else from the blob, and stores what it has fetched.
func (l *Layer) fetch(ctx context.Context, claimed []int, done func(int, []byte, error)) {
	if !l.x.seekable() {
		if missing := l.deliverKept(claimed, l.readWhole, done); len(missing) > 0 {
			l.restream(ctx, missing, done)
		}
		return
	}
	missing := l.deliverKept(claimed, l.readKept, done)
	if l.x.Info.Digests == OfBlob {
		l.fetchLinked(ctx, missing, done)
		return
	}
	var g errgroup.Group
	g.SetLimit(maxRequests)
	for _, r := range plan(l.x.Spans, missing, planLimits{gap: planGap, run: planRun}) {
		g.Go(func() error {
			rest, err := l.fetchRun(ctx, r, done)
			for _, i := range rest {
				done(i, nil, spanError(i, err))
			}
			return nil
		})
	}
	_ = g.Wait() // each span has its own outcome
}

func spanError(span int, err error) error { return fmt.Errorf("span %d: %w", span, err) }

// deliverKept delivers the spans that read finds, be it that another flight
// ended just now, and returns the others.
func (l *Layer) deliverKept(claimed []int, read func(int, []byte) bool, done deliver) []int {
	var missing []int
	var p []byte
	for _, i := range claimed {
		sp := &l.x.Spans[i]
		if int64(cap(p)) < sp.Len {
			p = make([]byte, sp.Len)
		}
		p = p[:sp.Len]
		if !read(i, p) {
			missing = append(missing, i)
			continue
		}
		done(i, p, nil)
		p = nil
	}
	return missing
}

// readWhole fills p with span i if the store has it.
func (l *Layer) readWhole(i int, p []byte) bool {
	return l.store.Has(i) && l.readStored(p, l.x.Spans[i].Addr, i, 1)
}

// readKept fills p with span i if the store has it, be it from before the
// last boot.
func (l *Layer) readKept(i int, p []byte) bool {
	if l.readWhole(i, p) {
		return true
	}
	r, ok := l.store.(Rechecker)
	if !ok || l.x.Info.Digests == OfBlob {
		return false
	}
	if ok, err := r.Recheck(i, l.x.Spans[i].Addr, p); err != nil || !ok {
		return false
	}
	if err := l.x.verifySpan(i, p); err != nil {
		l.log.WithError(err).Warn("stored bytes did not survive the reboot; fetching them again")
		return false
	}
	r.Confirm(i)
	return true
}

// fetchRun fetches and delivers the spans of a run, each as soon as its bytes
// are there. It returns the spans it got no bytes for, and why.
func (l *Layer) fetchRun(ctx context.Context, r run, done deliver) ([]int, error) {
	var decoding sync.WaitGroup
	defer decoding.Wait()
	var body *spanReader
	for k, i := range r.spans {
		weight, err := l.reserve(ctx, i)
		if err != nil {
			return r.spans[k:], err
		}
		if body == nil {
			rc, err := l.src.ReadRange(ctx, r.off, r.n)
			if err != nil {
				l.memory.Release(weight)
				return r.spans[k:], err
			}
			defer rc.Close()
			body = &spanReader{r: rc, at: r.off}
		}
		blob, err := body.next(&l.x.Spans[i])
		if err != nil {
			l.memory.Release(weight)
			return r.spans[k:], err
		}
		decoding.Go(func() {
			defer l.memory.Release(weight)
			l.land(ctx, i, blob, done)
		})
	}
	return nil, nil
}

// reserve waits for room for span i and returns how much to release later.
func (l *Layer) reserve(ctx context.Context, i int) (int64, error) {
	sp := &l.x.Spans[i]
	if sp.CLen > maxCLen {
		return 0, fmt.Errorf("%w: %d compressed bytes, the limit is %d", ErrMalformed, sp.CLen, maxCLen)
	}
	weight := min(sp.Len+sp.CLen+spanCost, maxMemory)
	return weight, l.memory.Acquire(ctx, weight)
}

// spanReader reads the bytes of spans, in blob order.
type spanReader struct {
	r    io.Reader
	at   int64  // where r stands in the blob
	last []byte // of the span before
}

func (r *spanReader) next(sp *Span) ([]byte, error) {
	p := make([]byte, sp.CLen)
	shared := int64(0)
	if sp.Off < r.at {
		shared = min(r.at-sp.Off, sp.CLen, int64(len(r.last)))
		copy(p, r.last[len(r.last)-int(r.at-sp.Off):])
	}
	err := readBlob(r.r, max(sp.Off-r.at, 0), p[shared:])
	r.at, r.last = sp.Off+sp.CLen, p
	return p, err
}

// readBlob skips skip bytes of r and fills p with those that follow.
func readBlob(r io.Reader, skip int64, p []byte) error {
	_, err := io.CopyN(io.Discard, r, skip)
	if err == nil {
		_, err = io.ReadFull(r, p)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// io.EOF must not pass for the end of a file.
		return fmt.Errorf("body ends early: %w", errdefs.ErrUnavailable)
	}
	return err
}

// land delivers and stores span i, whose bytes of the blob are given. Bytes
// that prove wrong are fetched once more, as a proxy or a mirror may have
// handed out bad ones.
func (l *Layer) land(ctx context.Context, i int, blob []byte, done deliver) {
	data, err := l.decode(ctx, i, blob)
	if err != nil && ctx.Err() == nil {
		l.log.WithError(err).Warn("fetching a span again")
		data, err = l.refetch(ctx, i, err)
	}
	if err != nil {
		done(i, nil, err)
		return
	}
	l.keep(i, data)
	done(i, data, nil)
}

// refetch fetches span i after a first try that ended with cause.
func (l *Layer) refetch(ctx context.Context, i int, cause error) ([]byte, error) {
	sp := &l.x.Spans[i]
	body, err := l.src.ReadRange(ctx, sp.Off, sp.CLen)
	if err != nil {
		return nil, fmt.Errorf("%w; fetched again: %w", cause, err)
	}
	defer body.Close()
	blob := make([]byte, sp.CLen)
	if err := readBlob(body, 0, blob); err != nil {
		return nil, fmt.Errorf("%w; fetched again: %w", cause, err)
	}
	return l.decode(ctx, i, blob)
}

// decode returns the verified bytes of span i.
func (l *Layer) decode(ctx context.Context, i int, blob []byte) ([]byte, error) {
	if err := l.decoders.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer l.decoders.Release(1)
	data := make([]byte, l.x.Spans[i].Len)
	if err := l.x.decodeSpan(i, blob, data); err != nil {
		return nil, err
	}
	return data, nil
}

// keep stores a verified span. A full disk makes reads slow, not wrong.
func (l *Layer) keep(i int, data []byte) {
	if err := l.store.Put(i, l.x.Spans[i].Addr, data); err != nil {
		l.complain(err)
	}
}
