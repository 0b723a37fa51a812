package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/internal/flat"
)

// hash hashes the tar and its chunks, and stages them.
func (s *streaming) hash(ctx context.Context) error {
	algorithm := digest.Canonical
	if s.diffID != "" {
		algorithm = s.diffID.Algorithm()
	}
	whole, c := algorithm.Hash(), &chunker{sum: sha256.New()}
	for {
		p, err := receive(ctx, s.decoded)
		if errors.Is(err, io.EOF) {
			c.end()
			s.chunks, s.size = c.chunks, c.addr
			s.gotDiff = digest.NewDigest(algorithm, whole)
			return nil
		}
		if err != nil {
			return err
		}
		whole.Write(p.data)
		c.add(p)
		if err := s.stage(p); err != nil {
			return err
		}
		if w := s.options.Watch; w != nil {
			w.Staged(c.addr)
		}
		if err := send(ctx, s.hashed, p); err != nil {
			return err
		}
	}
}

// stage keeps a part and what there is to note behind it.
func (s *streaming) stage(p part) error {
	if !p.staged {
		if _, err := s.options.Stage.Write(p.data); err != nil {
			return err
		}
	}
	if r, ok := s.options.Stage.(Resumable); ok && p.note != nil {
		return r.Note(p.note)
	}
	return nil
}

// chunker cuts the tar into chunks: where spans may begin, and where a chunk
// would get too long.
type chunker struct {
	sum    hash.Hash
	addr   int64 // bytes so far
	n      int64 // of them, in the chunk at hand
	chunks []Chunk
}

func (c *chunker) add(p part) {
	if c.n+int64(len(p.data)) > chunkMax {
		c.end()
	}
	c.sum.Write(p.data)
	c.addr += int64(len(p.data))
	c.n += int64(len(p.data))
	if p.cut {
		c.end()
	}
}

func (c *chunker) end() {
	if c.n == 0 {
		return
	}
	chunk := Chunk{Addr: c.addr - c.n, Len: uint32(c.n)}
	c.sum.Sum(chunk.SHA256[:0])
	c.chunks = append(c.chunks, chunk)
	c.n = 0
	c.sum.Reset()
}

// finish believes what was read if the digests match, and only then.
func (s *streaming) finish() (*Index, error) {
	switch {
	case s.gotBlob != s.blob:
		return nil, mismatch("compressed layer", s.blob, s.gotBlob)
	case s.bad != nil:
		return nil, malformed("%w", s.bad)
	case s.diffID != "" && s.gotDiff != s.diffID:
		return nil, mismatch("uncompressed layer", s.diffID, s.gotDiff)
	case s.tar.err != nil:
		return nil, s.tar.err
	}
	if s.options.File != "" {
		s.tar.sumFile(s.blob)
	}
	info := InfoInput{
		Blob: s.blob, DiffID: s.gotDiff, Reason: s.options.Reason,
		BlobSize: s.src.Size(), AddrSize: s.size, Format: s.format, Trust: Proved,
	}
	var cut Cut
	cut, info.Resident = s.cut()
	x, err := s.tar.b.Index(info, cut)
	if err != nil {
		return nil, err
	}
	return x, s.options.Stage.Commit(s.size, len(x.Spans))
}

// cut makes spans of the chunks between entrances; or a span of each chunk, and
// the reason, if the entrances are too far apart.
func (s *streaming) cut() (cut Cut, resident string) {
	es := s.entrances
	for len(es) > 0 && es[len(es)-1].Out >= s.size {
		es = es[:len(es)-1] // nothing comes out there any more
	}
	cut.Chunks = s.chunks
	if resident = s.resident(es); resident != "" {
		for i, c := range s.chunks {
			cut.Spans = append(cut.Spans, Span{Addr: c.Addr, Len: int64(c.Len), CLen: s.src.Size(), Chunks: flat.Range{First: uint32(i), Count: 1}})
		}
		inner(cut)
		return cut, resident
	}
	chunk := uint32(0)
	for i, e := range es {
		end, blobEnd := s.size, s.src.Size()
		if i+1 < len(es) {
			end, blobEnd = es[i+1].Out, es[i+1].In
			if es[i+1].Bit != 0 {
				blobEnd++
			}
		}
		r := flat.Range{First: chunk}
		for int(chunk) < len(s.chunks) && s.chunks[chunk].Addr < end {
			chunk++
		}
		r.Count = chunk - r.First
		cut.Spans = append(cut.Spans, Span{Addr: e.Out, Len: end - e.Out, Off: e.In, CLen: blobEnd - e.In, Chunks: r})
		if s.format == FormatGzip || s.format == FormatZstd {
			cut.add(e)
		}
	}
	inner(cut)
	return cut, ""
}

// inner says where a span's chunks lie in what the span decodes to.
func inner(cut Cut) {
	for _, sp := range cut.Spans {
		for i := sp.Chunks.First; i < sp.Chunks.First+sp.Chunks.Count; i++ {
			cut.Chunks[i].Inner = uint32(cut.Chunks[i].Addr - sp.Addr)
		}
	}
}

// add appends the checkpoint of the last span.
func (cut *Cut) add(e entrance) {
	c := Checkpoint{Window: flat.Range{First: uint32(len(cut.Windows)), Count: uint32(len(e.Window))}, Frame: e.Frame, Bit: e.Bit}
	if e.Member || e.Out == 0 && e.In == 0 && e.Bit == 0 && e.Window == nil {
		c.Member = 1
	}
	cut.Windows = append(cut.Windows, e.Window...)
	cut.Checkpoints = append(cut.Checkpoints, c)
}
