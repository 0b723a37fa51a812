package ztoc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// block is the unit of a tar in bytes: headers are one, content is padded to it.
const block = 512

// sparsePrefix begins the extended headers of sparse files, as GNU tar has them.
const sparsePrefix = "GNU.sparse."

// errSparse: the content of a sparse file does not stand in the tar as it is.
var errSparse = errors.New("a sparse file, of which a zTOC cannot tell the holes")

// check proves that a TOC is coherent and within the limits.
func (t *TOC) check() error {
	switch {
	case t.CompressedSize <= 0 || t.CompressedSize > maxArchive:
		return malformed("zTOC: a layer of %d bytes", t.CompressedSize)
	case t.UncompressedSize < 0 || t.UncompressedSize > maxArchive:
		return malformed("zTOC: an archive of %d bytes", t.UncompressedSize)
	case t.SpanSize < 0 || t.SpanSize > maxArchive:
		return malformed("zTOC: a span size of %d bytes", t.SpanSize)
	case len(t.Spans) == 0 || len(t.Spans) > maxSpans:
		return malformed("zTOC: %d spans, of 1 to %d allowed", len(t.Spans), maxSpans)
	}
	for i := range t.Spans {
		if err := t.checkSpan(i); err != nil {
			return malformed("span %d: %w", i, err)
		}
	}
	return nil
}

func (t *TOC) checkSpan(i int) error {
	s := &t.Spans[i]
	switch {
	case s.Digest.Validate() != nil || s.Digest.Algorithm() != digest.SHA256:
		return fmt.Errorf("digest %.100q", s.Digest)
	case s.Off < 0 || s.CLen < 1 || s.Out < 0 || s.Len < 0:
		return fmt.Errorf("it is from %d:%d to %d:%d", s.Off, s.Out, s.Off+s.CLen, s.Out+s.Len)
	case s.CLen > maxSpan || s.Len > maxSpan:
		return fmt.Errorf("it is %d bytes long, %d uncompressed", s.CLen, s.Len)
	case s.Bits > 7:
		return fmt.Errorf("it begins with %d bits", s.Bits)
	case len(s.Window) > WindowSize:
		return fmt.Errorf("a window of %d bytes", len(s.Window))
	case t.Compression == Uncompressed:
		return t.checkGrid(i)
	case t.Compression != Gzip:
		return fmt.Errorf("unknown %v", t.Compression)
	}
	// Only what inflates to nothing may precede another beginning, and
	// references of nothing reach into nothing.
	if s.Out > 0 && s.Window == nil || s.Out == 0 && s.Window != nil {
		return fmt.Errorf("a window of %d bytes at %d", len(s.Window), s.Out)
	}
	if i == 0 {
		if s.Off < gzipHeader || s.Bits != 0 || s.Out != 0 {
			return fmt.Errorf("it begins at %d:%d, not behind the gzip header", s.Off, s.Out)
		}
	} else if prev := &t.Spans[i-1]; s.Bit() <= prev.Bit() {
		return fmt.Errorf("it begins at bit %d, the one before at %d", s.Bit(), prev.Bit())
	}
	end, outEnd := t.CompressedSize, t.UncompressedSize
	if i+1 < len(t.Spans) {
		next := &t.Spans[i+1]
		end, outEnd = next.whole(), next.Out
	}
	if s.Off+s.CLen != end || s.Out+s.Len != outEnd {
		return fmt.Errorf("it ends at %d:%d, not at %d:%d", s.Off+s.CLen, s.Out+s.Len, end, outEnd)
	}
	return nil
}

func (t *TOC) checkGrid(i int) error {
	s := &t.Spans[i]
	off := int64(i) * t.SpanSize
	n := min(t.SpanSize, t.CompressedSize-off)
	last := i == len(t.Spans)-1
	if s.Off != off || s.Out != off || s.CLen != n || s.Len != n || s.Bits != 0 || s.Window != nil ||
		last != (off+n == t.CompressedSize) || t.UncompressedSize > t.CompressedSize {
		return fmt.Errorf("it is from %d to %d, of a tar of %d cut at every %d", s.Off, s.Off+s.CLen, t.CompressedSize, t.SpanSize)
	}
	return nil
}

// check proves that a file can be in a tar of the given size, when what stands
// before it ends at end, and returns where it ends itself.
func (f *File) check(end, size int64) (int64, error) {
	content := int64(0)
	switch f.Type {
	case TypeReg:
		content = f.Size
	case TypeDir, TypeSymlink, TypeHardlink, TypeChar, TypeBlock, TypeFifo:
	default:
		return 0, fmt.Errorf("unknown type %.40q", f.Type)
	}
	if f.Offset < end+block || f.Offset > size || content < 0 || content > size-f.Offset {
		return 0, fmt.Errorf("content is at %d, %d bytes, of a tar of %d that is taken up to %d",
			f.Offset, content, size, end)
	}
	if !expressible(f.ModTime.UTC()) {
		return 0, fmt.Errorf("it was modified in the year %d", f.ModTime.UTC().Year())
	}
	for key := range f.PAX {
		if strings.HasPrefix(key, sparsePrefix) {
			return 0, errSparse
		}
	}
	return (f.Offset + content + block - 1) / block * block, nil
}
