package layer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
)

// errStop ends a restream early and is no error.
var errStop = errors.New("enough")

// restream reads the blob of a layer that is not seekable from its beginning
// and hands each span, verified, to visit, which must not keep data. It ends
// with the blob, or when visit returns an error; errStop is no error then.
func (x *Index) restream(ctx context.Context, src Source, visit func(span int, addr int64, data []byte) error) error {
	r, body, err := openRange(ctx, src, 0, src.Size())
	if err != nil {
		return err
	}
	err = x.eachSpan(r, src.Size(), visit)
	switch {
	case errors.Is(err, errStop):
		err = nil
	case r.err != nil:
		err = r.err
	}
	return closing(body, err)
}

func (x *Index) eachSpan(r *rangeReader, size int64, visit func(span int, addr int64, data []byte) error) error {
	in, err := newInflater(bufio.NewReaderSize(r, 64<<10), size)
	if err != nil {
		return fmt.Errorf("%w: span 0: %w", ErrVerify, err)
	}
	defer in.close()
	var buf []byte
	for i, s := range x.Spans {
		if s.Len > int64(len(buf)) {
			buf = make([]byte, s.Len)
		}
		data := buf[:s.Len]
		n, err := in.fillAll(data)
		if int64(n) < s.Len {
			c := x.Chunks[s.Chunks.First]
			return fmt.Errorf("%w: span %d: expected %s, got %d bytes of %d: %w", ErrVerify, i, sha256Digest(c.SHA256), n, s.Len, err)
		}
		if err := x.verifySpan(i, data); err != nil {
			return err
		}
		if err := visit(i, s.Addr, data); err != nil {
			return err
		}
	}
	return nil
}

// restream delivers and stores spans of a layer that can only be read from its
// beginning. Like a span that can be fetched alone, a stream that proves wrong
// gets a second chance.
func (l *Layer) restream(ctx context.Context, missing []int, done deliver) {
	left := make(map[int]bool, len(missing))
	for _, i := range missing {
		left[i] = true
	}
	visit := func(i int, _ int64, data []byte) error {
		if left[i] {
			delete(left, i)
			l.keep(i, data)
			done(i, bytes.Clone(data), nil)
		}
		if len(left) == 0 {
			return errStop
		}
		return nil
	}
	err := l.x.restream(ctx, l.src, visit)
	if errors.Is(err, ErrVerify) {
		l.log.WithError(err).Warn("streaming the layer again")
		err = l.x.restream(ctx, l.src, visit)
	}
	if err == nil {
		err = fmt.Errorf("%w: the stream ended early", ErrMalformed)
	}
	for i := range left {
		done(i, nil, err)
	}
}
