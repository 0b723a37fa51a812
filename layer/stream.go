package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/peelfs/peel/internal/flat"
)

// StreamOptions are what Stream needs beside the layer.
type StreamOptions struct {
	Reason   string        // why the layer is streamed; kept in the index
	Stage    Stage         // takes the layer's bytes; the caller closes it
	Progress *atomic.Int64 // counts compressed bytes done, if not nil
}

// streamBuffers is how many spans are on their way through a stream at once:
// one in each step and one between two steps.
const streamBuffers = 5

// Stream makes the index of any layer in one pass over its blob, and fills the
// stage with the layer's address space, which is its uncompressed tar. The
// stage is committed once the digests of blob and tar, d.Digest and diffID,
// have both matched; a diffID of "" is not known and not checked. Errors are
// ErrVerify, ErrMalformed, and those of ctx, source and stage.
func Stream(ctx context.Context, src Source, d ocispec.Descriptor, diffID digest.Digest, o StreamOptions) (*Index, error) {
	s := &streaming{
		src: src, blob: d.Digest, diffID: diffID, options: o, tar: newTarParser(),
		free: make(chan []byte, streamBuffers), inflated: make(chan []byte, 1), hashed: make(chan []byte, 1),
	}
	x, err := s.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return x, nil
}

// streaming is a pass over a blob: inflate, hash and stage, parse, each in a
// goroutine that hands its buffer to the next one. They end when the blob
// does, or with the first that fails.
type streaming struct {
	src          Source
	blob, diffID digest.Digest
	options      StreamOptions

	free, inflated, hashed chan []byte
	buffers                int // made so far, by inflate

	format  FormatID
	bad     error         // what is wrong with the compressed bytes, if they are the right ones
	gotBlob digest.Digest // once inflate has ended
	gotDiff digest.Digest // once hash has ended
	size    int64         // of the tar, bytes
	spans   []Span
	chunks  []Chunk
	tar     *tarParser
}

func (s *streaming) run(ctx context.Context) (*Index, error) {
	if err := s.blob.Validate(); err != nil {
		return nil, malformed("digest %q: %w", clip(string(s.blob)), err)
	}
	if err := s.diffID.Validate(); s.diffID != "" && err != nil {
		return nil, malformed("diffID %q: %w", clip(string(s.diffID)), err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(s.inflated)
		return s.inflate(ctx)
	})
	g.Go(func() error {
		defer close(s.hashed)
		return s.hash(ctx)
	})
	g.Go(func() error { return s.parse(ctx) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return s.finish()
}

// inflate decompresses the blob and hashes it to its last byte.
func (s *streaming) inflate(ctx context.Context) error {
	done := s.options.Progress
	if done == nil {
		done = new(atomic.Int64)
	}
	b, body, err := openBlob(ctx, s.src, s.blob.Algorithm().Hash(), done)
	if err != nil {
		return err
	}
	s.bad = func() error {
		in, err := newInflater(b, s.src.Size())
		if err != nil {
			return err
		}
		defer in.close()
		s.format = in.format
		return s.pump(ctx, in)
	}()
	if err := ctx.Err(); err != nil {
		return closing(body, context.Cause(ctx))
	}
	if b.err == nil && !errors.Is(s.bad, errTooLong) {
		_, err = io.Copy(io.Discard, b)
	}
	s.gotBlob = digest.NewDigest(s.blob.Algorithm(), b.sum)
	if b.err != nil {
		err = b.err
	}
	return closing(body, err)
}

// buffer returns a buffer that is free, or a new one while there are few.
func (s *streaming) buffer(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-s.free:
		return buf, nil
	default:
	}
	if s.buffers < streamBuffers {
		s.buffers++
		return make([]byte, streamSpan), nil
	}
	return receive(ctx, s.free)
}

// pump passes the decompressed bytes on, a span at a time.
func (s *streaming) pump(ctx context.Context, in *inflater) error {
	for {
		buf, err := s.buffer(ctx)
		if err != nil {
			return err
		}
		n, err := in.fill(buf[:streamSpan])
		if n > 0 {
			if err := send(ctx, s.inflated, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hash hashes the tar and its spans, and stages them.
func (s *streaming) hash(ctx context.Context) error {
	algorithm := digest.Canonical
	if s.diffID != "" {
		algorithm = s.diffID.Algorithm()
	}
	sum := algorithm.Hash()
	for {
		buf, err := receive(ctx, s.inflated)
		if errors.Is(err, io.EOF) {
			s.gotDiff = digest.NewDigest(algorithm, sum)
			return nil
		}
		if err != nil {
			return err
		}
		sum.Write(buf)
		s.spans = append(s.spans, Span{Addr: s.size, Len: int64(len(buf)), Chunks: flat.Range{First: uint32(len(s.chunks)), Count: 1}})
		s.chunks = append(s.chunks, Chunk{Addr: s.size, Len: uint32(len(buf)), SHA256: sha256.Sum256(buf)})
		s.size += int64(len(buf))
		if _, err := s.options.Stage.Write(buf); err != nil {
			return err
		}
		if err := send(ctx, s.hashed, buf); err != nil {
			return err
		}
	}
}

// parse reads the tar. What is wrong with it is for finish to tell, once it is
// known whether the bytes are the right ones.
func (s *streaming) parse(ctx context.Context) error {
	r := &blockReader{next: func() ([]byte, error) { return receive(ctx, s.hashed) }, release: func(b []byte) { s.free <- b }}
	s.tar.run(r)
	return r.drain()
}
