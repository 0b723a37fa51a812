package layer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

const (
	// maxAgain is how often bytes that are wrong, or missing at the end of a
	// body, are asked for again without any progress.
	maxAgain = 8
	// firstPause is how long to wait before the first time; each further one
	// waits twice as long.
	firstPause = 5 * time.Millisecond
)

// errCutOff: a body ended before its time.
var errCutOff = sentinel.New("body ends early", errdefs.ErrUnavailable)

// pause waits before bytes are asked for again, for the try-th time from 0 on.
func pause(ctx context.Context, try int) error {
	t := time.NewTimer(firstPause << try)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// spanReader reads the bytes of spans, in the order of the blob, with one
// request as long as its body lasts.
type spanReader struct {
	src Source
	end int64 // of the spans in the blob
	// whole: the source knows no ranges, so that it is asked for all of the
	// blob; asking again is the pass's affair.
	whole bool

	body io.ReadCloser // nil before the first span
	at   int64         // where body stands in the blob
	last []byte        // of the span before
}

// next returns the blob's bytes of a span. What body has failed to give is asked
// for again if the source takes it for complete.
func (r *spanReader) next(ctx context.Context, sp *Span) ([]byte, error) {
	for try := 0; ; try++ {
		p, err := r.read(ctx, sp)
		if err == nil || !errors.Is(err, errCutOff) || try == maxAgain || r.whole {
			return p, err
		}
		if err := errors.Join(r.close(), pause(ctx, try)); err != nil {
			return nil, err
		}
	}
}

func (r *spanReader) read(ctx context.Context, sp *Span) ([]byte, error) {
	if r.body == nil {
		if err := r.open(ctx, sp.Off); err != nil {
			return nil, err
		}
	}
	p := make([]byte, sp.CLen)
	shared := int64(0)
	if sp.Off < r.at {
		shared = min(r.at-sp.Off, sp.CLen, int64(len(r.last)))
		copy(p, r.last[len(r.last)-int(r.at-sp.Off):])
	}
	err := readBlob(r.body, max(sp.Off-r.at, 0), p[shared:])
	r.at, r.last = sp.Off+sp.CLen, p
	return p, err
}

// open asks for the blob's bytes from off on.
func (r *spanReader) open(ctx context.Context, off int64) (err error) {
	end := r.end
	if r.whole {
		off, end = 0, r.src.Size()
	}
	r.at, r.last = off, nil
	r.body, err = r.src.ReadRange(ctx, off, end-off)
	return err
}

func (r *spanReader) close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}

// readBlob skips skip bytes of r and fills p with those that follow.
func readBlob(r io.Reader, skip int64, p []byte) error {
	_, err := io.CopyN(io.Discard, r, skip)
	if err == nil {
		_, err = io.ReadFull(r, p)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCutOff // io.EOF must not pass for the end of a file
	}
	return err
}
