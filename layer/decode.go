package layer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer/inflate"
	"github.com/peelfs/peel/layer/zstdseek"
)

// seekable reports whether a span can be decoded from its own bytes of the
// blob. Where it cannot, restream reads the blob from its beginning.
func (x *Index) seekable() bool {
	return x.Info.Format != FormatGzip && x.Info.Format != FormatZstd || len(x.Checkpoints) > 0
}

// decodeSpan decodes span i from blob, its bytes of the blob, into dst, as long
// as the span, and verifies every digest it has. The error is ErrVerify with
// the span and both digests. The layer must be seekable. Where the digests are
// OfBlob, the caller must compare windows, too.
func (x *Index) decodeSpan(i int, blob, dst []byte) error {
	s := x.Spans[i]
	chunks := x.Chunks[s.Chunks.First:][:s.Chunks.Count]
	if x.Info.Digests == OfBlob {
		c := chunks[0]
		if got := sha256.Sum256(blob[min(int(c.Inner), len(blob)):]); got != c.SHA256 {
			return mismatch(fmt.Sprintf("span %d: compressed bytes [%d, +%d)", i, s.Off, s.CLen), sha256Digest(c.SHA256), sha256Digest(got))
		}
	}
	d, _ := x.decoders.Get().(*spanDecoder)
	if d == nil {
		d = new(spanDecoder)
	}
	defer x.decoders.Put(d)
	if err := d.decode(x, i, blob, dst); err != nil {
		return fmt.Errorf("%w: span %d: addresses [%d, +%d): expected %s, got bytes that do not unpack: %w",
			ErrVerify, i, s.Addr, s.Len, sha256Digest(chunks[0].SHA256), err)
	}
	if x.Info.Digests == OfBlob {
		return nil
	}
	return x.verifySpan(i, dst)
}

// verifySpan checks the digests of span i's decoded bytes.
func (x *Index) verifySpan(i int, data []byte) error {
	sp := &x.Spans[i]
	for _, c := range x.Chunks[sp.Chunks.First:][:sp.Chunks.Count] {
		if got := sha256.Sum256(data[c.Addr-sp.Addr:][:c.Len]); got != c.SHA256 {
			return mismatch(fmt.Sprintf("span %d: addresses [%d, +%d)", i, c.Addr, c.Len), sha256Digest(c.SHA256), sha256Digest(got))
		}
	}
	return nil
}

func sha256Digest(sum [32]byte) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}

// spanDecoder decodes one span at a time.
type spanDecoder struct {
	in     bytes.Reader
	gz     *gzip.Reader      // whole members
	zs     *zstd.Decoder     // whole frames
	inf    *inflate.Reader   // from a checkpoint
	seek   *zstdseek.Decoder // likewise
	window []byte
}

func (d *spanDecoder) decode(x *Index, i int, blob, dst []byte) error {
	d.in.Reset(blob)
	defer d.in.Reset(nil)
	switch x.Info.Format {
	case FormatGzip:
		return d.inflate(x, i, dst)
	case FormatZstd:
		return d.unzstd(x.Checkpoints[i], blob, dst)
	case FormatTar, FormatFile:
		_, err := io.ReadFull(&d.in, dst)
		return err
	case FormatEstargz:
		return d.pieces(x, i, dst, d.openGzip)
	case FormatZstdChunked:
		return d.pieces(x, i, dst, d.openZstd)
	}
	return fmt.Errorf("format %d", x.Info.Format)
}

// inflate decodes from a gzip checkpoint.
func (d *spanDecoder) inflate(x *Index, i int, dst []byte) error {
	c := x.Checkpoints[i]
	var err error
	if d.window, err = inflate.Unpack(d.window[:0], x.window(i)); err != nil {
		return err
	}
	if d.inf == nil {
		d.inf = inflate.NewReader(nil)
	}
	d.inf.Resume(&d.in, inflate.Place{Bit: int64(c.Bit), Out: x.Spans[i].Addr, Member: c.Member != 0}, d.window)
	if _, err = io.ReadFull(d.inf, dst); err == nil && x.Info.Digests == OfBlob && len(x.Spans) == 1 {
		// No next window tells whether the member's header, which SOCI's
		// digest may leave out, was the right one; its checksum does.
		_, err = io.Copy(io.Discard, d.inf)
	}
	return err
}

// window returns the packed window of span i.
func (x *Index) window(i int) []byte {
	w := x.Checkpoints[i].Window
	return x.Windows[w.First:][:w.Count]
}

// unzstd decodes from a zstd checkpoint.
func (d *spanDecoder) unzstd(c Checkpoint, blob, dst []byte) error {
	if d.seek == nil {
		var err error
		if d.seek, err = zstdseek.NewDecoder(); err != nil {
			return err
		}
	}
	return d.seek.Decode(dst, blob, zstdseek.Place{Window: c.Frame})
}

func (d *spanDecoder) openGzip() (body io.Reader, err error) {
	if d.gz == nil {
		d.gz, err = gzip.NewReader(&d.in)
		return d.gz, err
	}
	return d.gz, d.gz.Reset(&d.in)
}

func (d *spanDecoder) openZstd() (body io.Reader, err error) {
	if d.zs == nil {
		d.zs, err = newZstd(&d.in)
		return d.zs, err
	}
	return d.zs, d.zs.Reset(&d.in)
}

// pieces decodes a span of which only the chunks matter.
func (d *spanDecoder) pieces(x *Index, i int, dst []byte, open func() (io.Reader, error)) error {
	body, err := open()
	if err != nil {
		return err
	}
	s, pos := x.Spans[i], int64(0)
	for _, c := range x.Chunks[s.Chunks.First:][:s.Chunks.Count] {
		if _, err := io.CopyN(io.Discard, body, int64(c.Inner)-pos); err != nil {
			return err
		}
		if _, err := io.ReadFull(body, dst[c.Addr-s.Addr:][:c.Len]); err != nil {
			return err
		}
		pos = int64(c.Inner) + int64(c.Len)
	}
	return nil
}
