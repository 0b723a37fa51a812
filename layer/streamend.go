package layer

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// openBlob starts to read the whole blob. The caller closes body.
func openBlob(ctx context.Context, src Source, sum hash.Hash, done *atomic.Int64) (*blobReader, io.Closer, error) {
	r, body, err := openRange(ctx, src, 0, src.Size())
	if err != nil {
		return nil, nil, err
	}
	return &blobReader{rangeReader: *r, sum: sum, done: done}, body, nil
}

// receive returns the next buffer, or io.EOF once there will be none.
func receive(ctx context.Context, c <-chan []byte) ([]byte, error) {
	select {
	case buf, ok := <-c:
		if !ok {
			return nil, io.EOF
		}
		return buf, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func send(ctx context.Context, c chan<- []byte, buf []byte) error {
	select {
	case c <- buf:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish believes what was read if the digests match, and only then.
func (s *streaming) finish() (*Index, error) {
	switch {
	case s.gotBlob != s.blob && !errors.Is(s.bad, errTooLong):
		return nil, mismatch("compressed layer", s.blob, s.gotBlob)
	case s.bad != nil:
		return nil, malformed("%w", s.bad)
	case s.diffID != "" && s.gotDiff != s.diffID:
		return nil, mismatch("uncompressed layer", s.diffID, s.gotDiff)
	case s.tar.err != nil:
		return nil, s.tar.err
	}
	for i := range s.spans {
		s.spans[i].Off, s.spans[i].CLen = 0, s.src.Size()
		if s.format == FormatTar {
			s.spans[i].Off, s.spans[i].CLen = s.spans[i].Addr, s.spans[i].Len
		}
	}
	x, err := s.tar.b.Index(InfoInput{
		Blob: s.blob, DiffID: s.gotDiff, Reason: s.options.Reason,
		BlobSize: s.src.Size(), AddrSize: s.size, Format: s.format, Trust: Proved,
	}, s.spans, s.chunks)
	if err != nil {
		return nil, err
	}
	return x, s.options.Stage.Commit(s.size, len(s.spans))
}

// errStop ends a restream early and is no error.
var errStop = errors.New("enough")

// restream reads the blob of a layer that is not seekable from its beginning
// and hands each span, verified, to visit, which must not keep data. It ends
// with the blob, or when visit returns an error; errStop is no error then.
func (x *Index) restream(ctx context.Context, src Source, visit func(span int, addr int64, data []byte) error) error {
	b, body, err := openBlob(ctx, src, digest.Canonical.Hash(), new(atomic.Int64))
	if err != nil {
		return err
	}
	err = x.eachSpan(b, src.Size(), visit)
	switch {
	case errors.Is(err, errStop):
		err = nil
	case b.err != nil:
		err = b.err
	}
	return closing(body, err)
}

func (x *Index) eachSpan(b *blobReader, size int64, visit func(span int, addr int64, data []byte) error) error {
	in, err := newInflater(b, size)
	if err != nil {
		return fmt.Errorf("%w: span 0: %w", ErrVerify, err)
	}
	defer in.close()
	buf := make([]byte, streamSpan)
	for i, s := range x.Spans {
		if s.Len > int64(len(buf)) {
			buf = make([]byte, s.Len)
		}
		data := buf[:s.Len]
		n, err := in.fill(data)
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
