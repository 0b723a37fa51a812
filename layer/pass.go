package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/flight"
)

// rangelessFor is how long a source is not asked for ranges after it has said
// that it has none.
const rangelessFor = time.Minute

// byPass reports whether spans can only be had by reading the blob from its
// beginning: the layer cannot be entered, or its source knows no ranges.
func (l *Layer) byPass() bool {
	return !l.x.seekable() || l.rangeless.Load() > time.Now().UnixNano()
}

// noticing is done that notices when a source turns out to know no ranges.
func (l *Layer) noticing(done deliver) deliver {
	return func(i int, a arrival, err error) {
		if errdefs.IsNotImplemented(err) {
			l.rangeless.Store(time.Now().Add(rangelessFor).UnixNano())
			l.wholly.Do(func() {
				l.log.WithError(err).Warn("no byte ranges are served; reading the layer from its beginning")
			})
		}
		done(i, a, err)
	}
}

// passing is fetching by a pass over the blob.
func (l *Layer) passing(e *errand) flight.Work[int, arrival] {
	return func(ctx context.Context, claimed []int, done func(int, arrival, error)) {
		slices.Sort(claimed)
		count := l.counting(ctx, e, done)
		l.sharePass(ctx, l.deliverKept(claimed, l.readWhole, FromStore, count), count, func(missing []int, done deliver) {
			l.pass(ctx, l.deliverReused(missing, done), done)
		})
	}
}

// pass delivers spans while it reads the blob from its beginning, and reads it
// anew for those that proved wrong.
func (l *Layer) pass(ctx context.Context, missing []int, done deliver) {
	for try := 0; len(missing) > 0; try++ {
		before := len(missing)
		failed := l.passOnce(ctx, missing, done)
		if len(failed) < before {
			try = 0
		}
		missing = slices.Sorted(maps.Keys(failed))
		missing = slices.DeleteFunc(missing, func(i int) bool {
			err := failed[i]
			if try < maxAgain && ctx.Err() == nil && worthAgain(err) {
				return false
			}
			done(i, arrival{}, err)
			return true
		})
		if len(missing) > 0 {
			l.counters.again.Add(int64(len(missing)))
			l.log.WithError(failed[missing[0]]).Warn("reading the layer again from its beginning")
			_ = pause(ctx, try) // the next pass tells that ctx has ended
		}
	}
}

// worthAgain reports whether other bytes may come when they are asked for again.
// A source without ranges cannot go on where a connection was lost.
func worthAgain(err error) bool {
	var lie *lieError
	return errors.Is(err, errCutOff) || errdefs.IsNotImplemented(err) || errors.Is(err, ErrVerify) && !errors.As(err, &lie)
}

// passOnce delivers what it can, and returns why it could not deliver the rest.
func (l *Layer) passOnce(ctx context.Context, missing []int, done deliver) map[int]error {
	if !l.x.seekable() {
		return l.restream(ctx, missing, done)
	}
	f := failures{of: make(map[int]error)}
	body := &spanReader{src: l.src, whole: true}
	var rest []int
	var err error
	if l.x.Info.Digests == OfBlob {
		give := func(_ context.Context, _ int, cause error) ([]byte, error) { return nil, cause }
		rest, err = l.readLinked(ctx, body, l.deliverLies(missing, done), give, done)
	} else {
		rest, err = l.readRun(ctx, body, missing, func(i int, blob []byte) {
			data, err := l.decode(ctx, i, blob)
			if err != nil {
				f.add(i, err)
				return
			}
			l.keep(i, data)
			done(i, arrival{data, FromNetwork}, nil)
		})
	}
	err = errors.Join(err, body.close())
	for _, i := range rest {
		f.add(i, spanError(i, err))
	}
	return f.of
}

// failures are why spans could not be delivered.
type failures struct {
	mu sync.Mutex // guards what follows
	of map[int]error
}

func (f *failures) add(i int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of[i] = err
}

// restream is passOnce for a layer that cannot be entered.
func (l *Layer) restream(ctx context.Context, missing []int, done deliver) map[int]error {
	left := make(map[int]error, len(missing))
	for _, i := range missing {
		left[i] = nil
	}
	err := l.x.restream(ctx, l.src, func(i int, _ int64, data []byte) error {
		if _, ok := left[i]; ok {
			delete(left, i)
			l.keep(i, data)
			done(i, arrival{bytes.Clone(data), FromNetwork}, nil)
		}
		if len(left) == 0 {
			return errStop
		}
		return nil
	})
	if err == nil {
		err = fmt.Errorf("%w: the stream ended early", ErrMalformed)
	}
	for i := range left {
		left[i] = err
	}
	return left
}
