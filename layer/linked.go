package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/peelfs/peel/layer/inflate"
)

// A SOCI index has digests of compressed bytes. They do not prove the window
// that a span is unpacked with, which is as good as its bytes. So a span is
// believed only if its window is what the span before it ends with, and that
// one is read for the purpose if nobody has it yet.

// linkedLimits have neighbours read by one request, since each request costs the
// bytes of the span before it.
func linkedLimits(lim planLimits) planLimits {
	return planLimits{run: math.MaxInt64, requests: lim.requests}
}

// deliverLies delivers those of the spans of which the index is known to say
// something wrong, and returns the others.
func (l *Layer) deliverLies(missing []int, done deliver) []int {
	return slices.DeleteFunc(missing, func(i int) bool {
		err, lies := l.lies.Load(i)
		if lies {
			done(i, arrival{}, err.(error)) //nolint:forcetypeassert // nothing else is stored
		}
		return lies
	})
}

// retry is what to do with a span whose bytes proved wrong, as cause tells.
type retry func(ctx context.Context, i int, cause error) ([]byte, error)

// readLinked reads and delivers spans in order. It returns those it could not
// deliver, and why.
func (l *Layer) readLinked(ctx context.Context, body *spanReader, spans []int, again retry, done deliver) ([]int, error) {
	var tail []byte
	for k, i := range spans {
		if k == 0 || spans[k-1] != i-1 {
			tail = l.tailBefore(i)
		}
		if tail == nil { // somebody has to tell what lies before
			before, err := l.linkedSpan(ctx, body, i-1, nil, again)
			if err != nil {
				return spans[k:], err
			}
			tail = tailOf(before)
		}
		data, err := l.linkedSpan(ctx, body, i, tail, again)
		if err != nil {
			return spans[k:], err
		}
		l.keep(i, data)
		done(i, arrival{data, FromNetwork}, nil)
		tail = tailOf(data)
	}
	return nil, nil
}

func tailOf(data []byte) []byte { return data[max(0, len(data)-inflate.WindowSize):] }

// linkedSpan decodes the next span of body, and compares its window with tail,
// what the span before it ends with; nil for a span that only leads in. What it
// ends with itself has to be the next one's window.
func (l *Layer) linkedSpan(ctx context.Context, body *spanReader, i int, tail []byte, again retry) ([]byte, error) {
	room, err := l.reserve(ctx, i)
	if err != nil {
		return nil, err
	}
	defer room.release()
	blob, err := body.next(ctx, &l.x.Spans[i])
	if err != nil {
		return nil, err
	}
	data, err := l.decode(ctx, i, blob)
	if err != nil {
		data, err = again(ctx, i, err)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(l.x.fits(i, tail), l.x.fits(i+1, data)); err != nil {
		err = &lieError{err}
		l.lies.Store(i, spanError(i, err)) // fetching it again would not help
		return nil, err
	}
	return data, nil
}

// lieError: what the index says of a span is wrong, whatever its bytes.
type lieError struct{ error }

func (e *lieError) Unwrap() error { return e.error }

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
