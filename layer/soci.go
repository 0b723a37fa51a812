package layer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer/inflate"
	"github.com/peelfs/peel/layer/ztoc"
)

// FromZTOC returns what a zTOC, an index of SOCI, claims of the layer with
// descriptor d. Its error is ErrMalformed, also if the zTOC is of another layer,
// as far as that can be told: a zTOC names no digest of its layer.
func FromZTOC(data []byte, d ocispec.Descriptor, c Claim) (*Index, error) {
	x, err := fromZTOC(data, d, c)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w: %w", d.Digest, ErrMalformed, err)
	}
	return x, nil
}

func fromZTOC(data []byte, d ocispec.Descriptor, c Claim) (*Index, error) {
	t, err := ztoc.Decode(data)
	switch {
	case err != nil:
		return nil, err
	case t.CompressedSize != d.Size:
		return nil, fmt.Errorf("zTOC of a layer of %d bytes, not %d: %w", t.CompressedSize, d.Size, errOther)
	case isZstd(d) || isGzip(d) && t.Compression != ztoc.Gzip:
		return nil, fmt.Errorf("zTOC of a layer that is %v, not %.100q: %w", t.Compression, d.MediaType, errOther)
	}
	return zIndex(t, InfoInput{
		Blob: d.Digest, Claim: c.Digest, Origin: c.Origin, BlobSize: d.Size, Format: FormatGzip, Trust: Claimed, Digests: OfBlob,
	}, c)
}

// zIndex lays out what a zTOC says.
func zIndex(t *ztoc.TOC, info InfoInput, c Claim) (*Index, error) {
	if t.Compression == ztoc.Uncompressed {
		info.Format, info.Digests = FormatTar, OfData // which are the same
	}
	b := NewBuilder()
	for i := range t.Files {
		h, err := zHeader(&t.Files[i], c)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", clip(t.Files[i].Name), err)
		}
		if err := b.Add(h); err != nil {
			return nil, err
		}
	}
	var z zCutter
	for i := range t.Spans {
		if err := z.add(t, i); err != nil {
			return nil, fmt.Errorf("span %d: %w", i, err)
		}
	}
	info.AddrSize = z.addr
	return b.Index(info, z.cut)
}

// zHeader is what a zTOC says of one path.
func zHeader(f *ztoc.File, c Claim) (*Header, error) {
	h := &Header{Name: f.Name, Link: f.Linkname}
	switch f.Type {
	case ztoc.TypeReg:
		h.Mode = typeRegular
		h.Size, h.Addr = f.Size, f.Offset
	case ztoc.TypeDir:
		h.Mode = typeDir
	case ztoc.TypeSymlink:
		h.Mode = typeSymlink
	case ztoc.TypeHardlink:
		h.Hardlink = true
	case ztoc.TypeChar:
		h.Mode = typeChar
	case ztoc.TypeBlock:
		h.Mode = typeBlock
	case ztoc.TypeFifo:
		h.Mode = typeFifo
	default:
		return nil, fmt.Errorf("type %q", clip(f.Type))
	}
	h.Mode |= uint32(f.Mode) & permMask
	if !f.ModTime.IsZero() {
		h.MtimeSec, h.MtimeNsec = f.ModTime.Unix(), uint32(f.ModTime.Nanosecond())
	}
	if !c.DisableXattrs {
		var err error
		if h.Xattrs, err = xattrs(f.PAX); err != nil {
			return nil, err
		}
	}
	return h, h.setNumbers(int64(f.UID), int64(f.GID), f.Devmajor, f.Devminor)
}

// zCutter makes spans of those of a zTOC.
type zCutter struct {
	cut    Cut
	addr   int64
	packer inflate.Packer
	window []byte // before addr, of the span before
}

// add takes span i. One from which nothing comes out is left out: the next one
// needs none of its bytes.
func (z *zCutter) add(t *ztoc.TOC, i int) error {
	s := &t.Spans[i]
	if s.Len == 0 {
		return nil
	}
	sum, err := zSum(s.Digest)
	if err != nil {
		return err
	}
	n := len(z.cut.Spans)
	sp := Span{Addr: s.Out, Len: s.Len, Off: s.Off, CLen: s.CLen, Chunks: flat.Range{First: uint32(n), Count: 1}}
	chunk := Chunk{Addr: s.Out, Len: uint32(s.Len), SHA256: sum}
	z.addr = s.Out + s.Len
	if t.Compression == ztoc.Gzip {
		c := Checkpoint{Bit: (8 - s.Bits) % 8}
		if i == 0 && s.Off == sizeGzipHeader {
			// Where checkpoints of layout 1 always begin: only the header tells
			// whether it ends here.
			c.Member, chunk.Inner = 1, sizeGzipHeader
			sp.Off, sp.CLen = 0, s.Off+s.CLen
		}
		if c.Window, err = z.keep(s); err != nil {
			return err
		}
		z.cut.Checkpoints = append(z.cut.Checkpoints, c)
	}
	z.cut.Spans, z.cut.Chunks = append(z.cut.Spans, sp), append(z.cut.Chunks, chunk)
	return nil
}

// sizeGzipHeader is the length in bytes of a gzip header without a name (RFC
// 1952, section 2.3).
const sizeGzipHeader = 10

// keep packs the window of a span. Whoever proves it by the data before it looks
// at one span only, so what reaches further back must agree with the window there.
func (z *zCutter) keep(s *ztoc.Span) (flat.Range, error) {
	w := s.Window[max(0, int64(len(s.Window))-s.Out):]
	if n := len(z.cut.Spans); n > 0 {
		before := z.cut.Spans[n-1].Len
		older := w[:max(0, int64(len(w))-before)]
		if !bytes.HasSuffix(z.window, older) {
			return flat.Range{}, fmt.Errorf("its window and that of the span before differ in %d bytes or fewer", len(older))
		}
	}
	z.window = w
	first := len(z.cut.Windows)
	z.cut.Windows = z.packer.Pack(z.cut.Windows, w)
	if len(z.cut.Windows) > math.MaxInt32 {
		return flat.Range{}, limit("bytes of windows", int64(len(z.cut.Windows)), math.MaxInt32)
	}
	return flat.Range{First: uint32(first), Count: uint32(len(z.cut.Windows) - first)}, nil
}

func zSum(d digest.Digest) (sum [32]byte, err error) {
	if _, err = hex.Decode(sum[:], []byte(d.Encoded())); err != nil {
		return sum, fmt.Errorf("digest %.100q: %w", d, err)
	}
	return sum, nil
}
