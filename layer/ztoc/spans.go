package ztoc

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer/inflate"
)

// obedient is a blob that ends with its context.
type obedient struct {
	ctx  context.Context //nolint:containedctx // it lives no longer than the call that made it
	blob io.Reader
}

func (o *obedient) Read(p []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	return o.blob.Read(p)
}

// gzipSpanner inflates a layer and cuts it where zlib's zran example would: at
// the first beginning of a block that is more than the span size behind the
// last cut, or has no output before it.
type gzipSpanner struct {
	z        *inflate.Reader
	raw      rawBytes
	history  history
	spanSize int64
	found    []Span
	last     int64 // output before the last cut
	// member is the place where a member begins whose header may not have been
	// read whole; -1 if there is none.
	member int64
	err    error
}

func newGzipSpanner(r io.Reader, spanSize int64) *gzipSpanner {
	s := &gzipSpanner{spanSize: spanSize, raw: rawBytes{r: r}}
	s.z = inflate.NewReader(&s.raw)
	return s
}

func (s *gzipSpanner) Read(p []byte) (int, error) {
	for len(p) > 0 && s.err == nil {
		// A block without output is a place to cut like any other.
		if n := s.step(p); n > 0 {
			return n, nil
		}
	}
	return 0, s.err
}

// step reads up to the end of a block, and sets err if that cannot be gone on
// with.
func (s *gzipSpanner) step(p []byte) int {
	n, err := s.z.Read(p)
	if s.member >= 0 && (err == nil || errors.Is(err, io.EOF)) {
		s.block(8 * (s.member + s.raw.headerLen(s.member)))
		s.member = -1
	}
	s.history.add(p[:n])
	if at, ok := s.z.Boundary(); ok && at.Member {
		s.member = at.Bit / 8
	} else if ok {
		s.block(at.Bit)
	}
	switch {
	case err != nil:
		s.err = err
	case s.raw.pending() > maxSpan:
		s.err = malformed("a block of more than %d bytes", maxSpan)
	case len(s.found) > maxTOC/pointSize:
		s.err = malformed("checkpoints of more than %d bytes", maxTOC)
	case s.history.total > maxArchive:
		s.err = malformed("an archive of more than %d bytes", int64(maxArchive))
	}
	return n
}

// block is told that a block begins at a bit of the blob.
func (s *gzipSpanner) block(bit int64) {
	out := s.history.total
	off, whole := bit/8, (bit+7)/8
	if out != 0 && out-s.last <= s.spanSize {
		s.raw.hash(off)
		return
	}
	s.raw.hash(whole)
	s.cut()
	s.raw.from(off)
	sp := Span{Off: off, Out: out, Bits: uint8(8*whole - bit)}
	if out > 0 {
		sp.Window = s.history.window()
	}
	s.found = append(s.found, sp)
	s.last = out
}

// cut ends the span at hand; before the first one there is only the header.
func (s *gzipSpanner) cut() {
	d := s.raw.sum()
	if n := len(s.found); n > 0 {
		s.found[n-1].Digest = d
	}
}

func (s *gzipSpanner) fault() error {
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

func (s *gzipSpanner) spans() ([]Span, int64) {
	s.raw.hash(s.raw.end)
	s.cut()
	return s.found, s.raw.end
}

// rawBytes passes a blob on and keeps what has not been hashed: where a span
// ends is known only after some more has been read.
type rawBytes struct {
	r      io.Reader
	h      hash.Hash
	buf    []byte // the blob up to end
	hashed int    // bytes of buf that were hashed
	end    int64
}

func (b *rawBytes) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	// Half of it has been hashed, so that each byte is moved once on average.
	if b.hashed > len(b.buf)/2 {
		keep := b.hashed - 1 // a span may begin in the last hashed byte
		b.buf = b.buf[:copy(b.buf, b.buf[keep:])]
		b.hashed = 1
	}
	b.buf = append(b.buf, p[:n]...)
	b.end += int64(n)
	return n, err
}

// pending is how many bytes wait for being hashed.
func (b *rawBytes) pending() int { return len(b.buf) - b.hashed }

// index is where the byte at an offset of the blob is in buf.
func (b *rawBytes) index(off int64) int { return len(b.buf) - int(b.end-off) }

// hash takes the bytes up to an offset into the span at hand.
func (b *rawBytes) hash(to int64) {
	if b.h == nil {
		b.h = sha256.New()
	}
	if i := b.index(to); i > b.hashed {
		b.h.Write(b.buf[b.hashed:i])
		b.hashed = i
	}
}

// sum ends the span at hand.
func (b *rawBytes) sum() digest.Digest {
	d := digest.NewDigest(digest.SHA256, b.h)
	b.h.Reset()
	return d
}

// from begins a span at an offset at which one ended or one before it.
func (b *rawBytes) from(off int64) { b.hashed = b.index(off) }

// headerLen is the length of the gzip header at an offset, which has been read
// and found well-formed (RFC 1952, section 2.3).
func (b *rawBytes) headerLen(off int64) int64 {
	const extra, name, comment, crc = 1 << 2, 1 << 3, 1 << 4, 1 << 1
	p := b.buf[b.index(off):]
	flags, n := p[3], gzipHeader
	if flags&extra != 0 {
		n += 2 + int(p[n]) + int(p[n+1])<<8
	}
	for _, flag := range []byte{name, comment} {
		if flags&flag == 0 {
			continue
		}
		for p[n] != 0 {
			n++
		}
		n++
	}
	if flags&crc != 0 {
		n += 2
	}
	return int64(n)
}

// history is the last output, in a ring.
type history struct {
	ring  [WindowSize]byte
	total int64
}

func (h *history) add(p []byte) {
	h.total += int64(len(p))
	p = p[max(0, len(p)-WindowSize):]
	at := int((h.total - int64(len(p))) % WindowSize)
	n := copy(h.ring[at:], p)
	copy(h.ring[:], p[n:])
}

// window is the last WindowSize bytes, with zeros in front if there are fewer.
func (h *history) window() []byte {
	at := h.total % WindowSize
	w := make([]byte, 0, WindowSize)
	return append(append(w, h.ring[at:]...), h.ring[:at]...)
}

// tarSpanner passes a tar on and hashes stretches of the span size.
type tarSpanner struct {
	r        *bufio.Reader
	spanSize int64
	h        hash.Hash
	n        int64 // bytes of the span at hand
	size     int64
	found    []Span
	err      error
}

func newTarSpanner(r *bufio.Reader, spanSize int64) *tarSpanner {
	return &tarSpanner{r: r, spanSize: spanSize, h: sha256.New()}
}

func (s *tarSpanner) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(int64(len(p)), s.spanSize-s.n)])
	s.h.Write(p[:n])
	s.n += int64(n)
	s.size += int64(n)
	if s.n == s.spanSize {
		s.cut()
	}
	if err == nil && (s.size > maxArchive || len(s.found) > maxSpans) {
		err = malformed("an archive of more than %d bytes or %d spans", int64(maxArchive), maxSpans)
	}
	s.err = err
	return n, err
}

func (s *tarSpanner) cut() {
	s.found = append(s.found, Span{Digest: digest.NewDigest(digest.SHA256, s.h)})
	s.h.Reset()
	s.n = 0
}

func (s *tarSpanner) fault() error {
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

func (s *tarSpanner) spans() ([]Span, int64) {
	if s.n > 0 {
		s.cut()
	}
	return s.found, s.size
}
