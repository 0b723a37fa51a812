package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/layer/inflate"
)

// A SOCI index has digests of compressed bytes. They do not prove the window
// that a span is unpacked with, which is as good as its bytes. So a span is
// believed only if its window is what the span before it ends with, and that
// one is read for the purpose if nobody has it yet.

// fetchLinked is fetch for such layers.
func (l *Layer) fetchLinked(ctx context.Context, missing []int, done deliver) {
	missing = slices.DeleteFunc(missing, func(i int) bool {
		err, lies := l.lies.Load(i)
		if lies {
			done(i, nil, err.(error)) //nolint:forcetypeassert // nothing else is stored
		}
		return lies
	})
	var g errgroup.Group
	g.SetLimit(maxRequests)
	for len(missing) > 0 {
		n := 1
		for n < len(missing) && missing[n] == missing[n-1]+1 {
			n++
		}
		group := missing[:n]
		missing = missing[n:]
		g.Go(func() error {
			rest, err := l.fetchGroup(ctx, group, done)
			for _, i := range rest {
				done(i, nil, spanError(i, err))
			}
			return nil
		})
	}
	_ = g.Wait() // each span has its own outcome
}

// fetchGroup fetches and delivers neighbouring spans in order. It returns those
// it could not deliver, and why.
func (l *Layer) fetchGroup(ctx context.Context, group []int, done deliver) ([]int, error) {
	first := group[0]
	tail := l.tailBefore(first)
	if tail == nil {
		first--
	}
	last := &l.x.Spans[group[len(group)-1]]
	off := l.x.Spans[first].Off
	body, err := l.src.ReadRange(ctx, off, last.Off+last.CLen-off)
	if err != nil {
		return group, err
	}
	defer body.Close()
	r := &spanReader{r: body, at: off}
	for i := first; i <= group[len(group)-1]; i++ {
		rest := group[max(i-group[0], 0):]
		weight, err := l.reserve(ctx, i)
		if err != nil {
			return rest, err
		}
		data, err := l.linkedSpan(ctx, r, i, tail)
		l.memory.Release(weight)
		if err != nil {
			return rest, err
		}
		if i >= group[0] {
			l.keep(i, data)
			done(i, data, nil)
		}
		tail = data[max(0, len(data)-inflate.WindowSize):]
	}
	return nil, nil
}

// linkedSpan decodes the next span of r, and compares its window with tail,
// what the span before it ends with; nil for a span that only leads in. What it
// ends with itself has to be the next one's window.
func (l *Layer) linkedSpan(ctx context.Context, r *spanReader, i int, tail []byte) ([]byte, error) {
	blob, err := r.next(&l.x.Spans[i])
	if err != nil {
		return nil, err
	}
	data, err := l.decode(ctx, i, blob)
	if err != nil && ctx.Err() == nil {
		l.log.WithError(err).Warn("fetching a span again")
		data, err = l.refetch(ctx, i, err)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(l.x.fits(i, tail), l.x.fits(i+1, data)); err != nil {
		l.lies.Store(i, spanError(i, err)) // fetching it again would not help
		return nil, err
	}
	return data, nil
}

// fits compares the window of span i with what the span before it ends with.
func (x *Index) fits(i int, tail []byte) error {
	if tail == nil || i >= len(x.Spans) || x.Checkpoints == nil || x.Checkpoints[i].Member != 0 {
		return nil
	}
	window, err := inflate.Unpack(nil, x.window(i))
	if err != nil {
		return fmt.Errorf("%w: span %d: window: %w", ErrVerify, i, err)
	}
	n := min(len(window), len(tail))
	if !bytes.Equal(window[len(window)-n:], tail[len(tail)-n:]) {
		return fmt.Errorf("%w: span %d: the index's window is not what lies before address %d", ErrVerify, i, x.Spans[i].Addr)
	}
	return nil
}

// tailBefore returns what the span before i ends with: empty if i needs
// nothing of it, nil if it is not stored.
func (l *Layer) tailBefore(i int) []byte {
	if i == 0 || l.x.Checkpoints == nil || l.x.Checkpoints[i].Member != 0 {
		return []byte{}
	}
	before := &l.x.Spans[i-1]
	n := min(before.Len, inflate.WindowSize)
	tail := make([]byte, n)
	ok, err := l.store.Read(tail, before.Addr+before.Len-n, i-1, 1)
	if err != nil || !ok {
		return nil // what cannot be read has to be fetched
	}
	return tail
}
