package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// StreamOptions are what Stream needs beside the layer.
type StreamOptions struct {
	Reason   string        // why the layer is streamed; kept in the index
	Stage    Stage         // takes the layer's bytes; the caller closes it; nil: the layer is only indexed
	File     string        // the blob is no tar but this one file, path in the layer; "": it is a tar
	Progress *atomic.Int64 // counts compressed bytes done, if not nil
	Watch    Watcher       // sees what is not proved yet, if not nil
	Log      *logrus.Entry // nil: say nothing
}

// Watcher sees a layer while it is streamed, before its digests are proved. Its
// methods are called one after the other by one goroutine each, and must be
// quick.
type Watcher interface {
	// Header is called for each entry of the tar, in its order.
	Header(h *Header)
	// Staged is called when the stage has the first n bytes of the tar.
	Staged(n int64)
}

const (
	streamBuffers = 6         // on their way through a pass at once
	streamBuffer  = 512 << 10 // bytes
	chunkMax      = 4 << 20   // bytes of a streamed layer's chunk
)

// Stream makes the index of any layer in one pass over its blob, and fills the
// stage with the layer's address space, which is its uncompressed tar. The
// stage is committed once the digests of blob and tar, d.Digest and diffID,
// have both matched; a diffID of "" is not known and not checked. Where the
// stage is Resumable, a pass goes on where the last one was interrupted, and
// where that or no stage allows it, a blob that proves wrong is streamed three
// times in all. With o.File the blob itself is the address space, whatever its
// media type and content, and d.Digest the diffID. Errors are ErrVerify,
// ErrMalformed, and those of ctx, source and stage.
func Stream(ctx context.Context, src Source, d ocispec.Descriptor, diffID digest.Digest, o StreamOptions) (*Index, error) {
	if o.Log == nil {
		o.Log = silence()
	}
	if o.Stage == nil {
		o.Stage = nowhere{}
	}
	if o.Progress == nil {
		o.Progress = new(atomic.Int64)
	}
	x, err := stream(ctx, src, d, diffID, o)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return x, nil
}

func stream(ctx context.Context, src Source, d ocispec.Descriptor, diffID digest.Digest, o StreamOptions) (*Index, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, malformed("digest %q: %w", clip(string(d.Digest)), err)
	}
	if err := diffID.Validate(); diffID != "" && err != nil {
		return nil, malformed("diffID %q: %w", clip(string(diffID)), err)
	}
	if o.File != "" {
		if err := checkFile(o.File); err != nil {
			return nil, err
		}
		if diffID == "" {
			diffID = d.Digest // there is nothing to unpack
		}
	}
	s := &streaming{src: src, blob: d.Digest, diffID: diffID, options: o}
	from := s.resumption()
	x, err := s.run(ctx, from)
	for passes := 1; s.wrong(err, from) && s.rewinds() && passes < maxPasses; passes++ {
		o.Log.WithError(err).WithField("layer", d.Digest).Warn("streaming the layer anew from its beginning")
		s = &streaming{src: src, blob: d.Digest, diffID: diffID, options: o}
		from = s.beginning()
		x, err = s.run(ctx, from)
	}
	if errors.Is(err, ErrVerify) || errors.Is(err, ErrMalformed) {
		return nil, errors.Join(err, s.forget())
	}
	return x, err
}

// maxPasses is how often a blob is streamed in all, before its bytes are taken
// for what the source has.
const maxPasses = 3

// wrong reports whether a pass that began at from may end otherwise when it
// begins at the beginning: the blob's bytes were wrong, or what the last pass
// left may be to blame, by the disk or a crash, or the source has no ranges, so
// that it can go on nowhere.
func (s *streaming) wrong(err error, from resumption) bool {
	if errdefs.IsNotImplemented(err) {
		return true
	}
	if !errors.Is(err, ErrVerify) && !errors.Is(err, ErrMalformed) {
		return false
	}
	return from.off > 0 || s.gotBlob != "" && s.gotBlob != s.blob
}

// rewinds reports whether the stage can be written from its beginning.
func (s *streaming) rewinds() bool {
	switch s.options.Stage.(type) {
	case Resumable, nowhere:
		return true
	}
	return false
}

// streaming is a pass over a blob: download and hash, decode, hash and stage,
// parse, each in a goroutine that hands its buffer to the next one. They end
// when the blob does, or with the first that fails.
type streaming struct {
	src          Source
	blob, diffID digest.Digest
	options      StreamOptions

	free            chan []byte
	decoded, hashed chan part
	buffers         int // made so far, by buffer

	format    FormatID
	bad       error         // what is wrong with the compressed bytes, if they are the right ones
	gotBlob   digest.Digest // once decode has ended
	entrances []entrance    // likewise
	noted     int           // of them, in notes
	noteSum   [32]byte      // of the last note
	gotDiff   digest.Digest // once hash has ended
	size      int64         // of the tar, bytes
	chunks    []Chunk
	tar       *tarParser
}

// part is a piece of the tar on its way.
type part struct {
	data   []byte
	cut    bool   // a span may begin behind it
	staged bool   // the stage has it already
	note   []byte // to be kept once data is staged
}

func (s *streaming) run(ctx context.Context, from resumption) (*Index, error) {
	s.free = make(chan []byte, streamBuffers)
	s.decoded, s.hashed = make(chan part, 1), make(chan part, 1)
	s.entrances, s.noted, s.format = from.entrances, len(from.entrances), from.format
	s.noteSum = from.noteSum
	s.tar = newTarParser(s.options.Watch)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(s.decoded)
		return s.decode(ctx, g, from)
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

// decode decompresses the blob and hashes it to its last byte.
func (s *streaming) decode(ctx context.Context, g *errgroup.Group, from resumption) error {
	blob, err := newIntake(ctx, g, s.src, from, s.options.Progress)
	if err != nil {
		return err
	}
	if err := s.replay(ctx, from); err != nil {
		return err
	}
	s.bad = s.pump(ctx, blob, from)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if errors.Is(s.bad, errTooLong) {
		return malformed("%w", s.bad) // whatever the digest of the rest
	}
	if blob.err == nil {
		if err := blob.drain(); err != nil {
			return err
		}
	}
	if blob.err != nil {
		return blob.err
	}
	s.gotBlob = digest.NewDigest(s.blob.Algorithm(), blob.sum)
	return nil
}

// buffer returns a buffer that is free, or a new one while there are few.
func (s *streaming) buffer(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-s.free:
		return buf[:streamBuffer], nil
	default:
	}
	if s.buffers < streamBuffers {
		s.buffers++
		return make([]byte, streamBuffer), nil
	}
	buf, err := receive(ctx, s.free)
	return buf[:min(cap(buf), streamBuffer)], err
}

// replay passes on what an interrupted pass has staged.
func (s *streaming) replay(ctx context.Context, from resumption) error {
	for i := range s.entrances {
		at, end := s.entrances[i].Out, from.at.Out
		if i+1 < len(s.entrances) {
			end = s.entrances[i+1].Out
		}
		for at < end {
			buf, err := s.buffer(ctx)
			if err != nil {
				return err
			}
			data := buf[:min(int64(len(buf)), end-at)]
			if _, err := from.stage.ReadAt(data, at); err != nil {
				return err
			}
			at += int64(len(data))
			if err := send(ctx, s.decoded, part{data: data, cut: at == end, staged: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// pump passes the decompressed bytes on, ending a part wherever a span may
// begin.
func (s *streaming) pump(ctx context.Context, blob *intake, from resumption) error {
	in, err := s.open(from, blob)
	if err != nil {
		return err
	}
	defer in.close()
	s.format = in.format
	if len(s.entrances) == 0 {
		s.entrances = append(s.entrances, entrance{})
	}
	for {
		buf, err := s.buffer(ctx)
		if err != nil {
			return err
		}
		n, at, err := in.fill(buf)
		p := part{data: buf[:n]}
		if at != nil {
			s.leave(in)
			in.enter()
			s.entrances = append(s.entrances, *at)
			p.cut, p.note = true, s.note(in, blob.state)
		}
		if n > 0 || at != nil { // the bytes before the entrance may have filled the last buffer
			if err := send(ctx, s.decoded, p); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			s.leave(in)
			s.entrances = in.hold(s.entrances)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// leave keeps the window of the span that ends, now that it is known which of
// its bytes are needed.
func (s *streaming) leave(in *inflater) {
	if last := &s.entrances[len(s.entrances)-1]; last.Out > 0 && !last.Member {
		last.Window = in.left()
	}
}

// parse reads the tar. What is wrong with it is for finish to tell, once it is
// known whether the bytes are the right ones.
func (s *streaming) parse(ctx context.Context) error {
	next := func() ([]byte, error) {
		for {
			p, err := receive(ctx, s.hashed)
			if err != nil || len(p.data) > 0 {
				return p.data, err
			}
			s.free <- p.data
		}
	}
	r := &blockReader{next: next, release: func(b []byte) { s.free <- b }}
	if s.options.File != "" {
		s.tar.runFile(s.options.File, s.src.Size())
	} else {
		s.tar.run(r)
	}
	return r.drain()
}

// receive returns what comes next, or io.EOF once nothing will.
func receive[T any](ctx context.Context, c <-chan T) (v T, err error) {
	select {
	case v, ok := <-c:
		if !ok {
			return v, io.EOF
		}
		return v, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

func send[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
