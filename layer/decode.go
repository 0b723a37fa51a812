package layer

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// seekable reports whether a span can be decoded from its own bytes of the
// blob. Where it cannot, restream reads the blob from its beginning.
func (x *Index) seekable() bool {
	return x.Info.Format != FormatGzip && x.Info.Format != FormatZstd
}

// decodeSpan decodes span i from its bytes of the blob, which r yields, into
// dst, as long as the span, and verifies every chunk. The error is ErrVerify
// with the span and both digests, or r's own. The layer must be seekable.
func (x *Index) decodeSpan(i int, r io.Reader, dst []byte) error {
	s := x.Spans[i]
	d, _ := x.decoders.Get().(*spanDecoder)
	if d == nil {
		d = new(spanDecoder)
	}
	d.in = rangeReader{r: r, left: s.CLen}
	defer func() {
		d.in.r = nil
		x.decoders.Put(d)
	}()
	body, err := d.open(x.Info.Format)
	var pos int64
	for _, c := range x.Chunks[s.Chunks.First:][:s.Chunks.Count] {
		if err == nil {
			_, err = io.CopyN(io.Discard, body, int64(c.Inner)-pos)
		}
		part := dst[c.Addr-s.Addr:][:c.Len]
		if err == nil {
			_, err = io.ReadFull(body, part)
		}
		if err != nil {
			return d.failure(i, c, err)
		}
		if err := verifyChunk(i, c, part); err != nil {
			return err
		}
		pos = int64(c.Inner) + int64(c.Len)
	}
	return nil
}

func verifyChunk(span int, c Chunk, data []byte) error {
	if got := sha256.Sum256(data); got != c.SHA256 {
		return mismatch(fmt.Sprintf("span %d: addresses [%d, +%d)", span, c.Addr, c.Len), sha256Digest(c.SHA256), sha256Digest(got))
	}
	return nil
}

func sha256Digest(sum [32]byte) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}

// spanDecoder decodes one span at a time.
type spanDecoder struct {
	in rangeReader
	gz *gzip.Reader
	zs *zstd.Decoder
}

func (d *spanDecoder) open(f FormatID) (body io.Reader, err error) {
	switch {
	case f == FormatEstargz && d.gz == nil:
		d.gz, err = gzip.NewReader(&d.in)
		return d.gz, err
	case f == FormatEstargz:
		return d.gz, d.gz.Reset(&d.in)
	case f == FormatZstdChunked && d.zs == nil:
		d.zs, err = newZstd(&d.in)
		return d.zs, err
	case f == FormatZstdChunked:
		return d.zs, d.zs.Reset(&d.in)
	}
	return &d.in, nil
}

// failure tells a source that failed from bytes that are wrong.
func (d *spanDecoder) failure(span int, c Chunk, err error) error {
	if d.in.err != nil {
		return fmt.Errorf("span %d: %w", span, d.in.err)
	}
	return fmt.Errorf("%w: span %d: addresses [%d, +%d): expected %s, got bytes that do not unpack: %w",
		ErrVerify, span, c.Addr, c.Len, sha256Digest(c.SHA256), err)
}
