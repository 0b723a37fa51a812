package layer

import (
	"bufio"
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
