package ztoc

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// BuildOptions say how a zTOC is made.
type BuildOptions struct {
	// SpanSize is the least number of uncompressed bytes between checkpoints;
	// 0 means DefaultSpanSize. Spans of a gzip layer go on to the end of the
	// block.
	SpanSize int64
	// BuildTool is kept in the zTOC, for people.
	BuildTool string
}

// Build reads the blob of a layer, gzip or plain tar, and makes its zTOC: what
// SOCI's own builder makes of it. Reading ends with the blob. It uses memory
// for the result and for one block of DEFLATE.
func Build(ctx context.Context, blob io.Reader, o BuildOptions) (*TOC, error) {
	if o.SpanSize == 0 {
		o.SpanSize = DefaultSpanSize
	}
	if o.SpanSize < 0 || o.SpanSize > maxSpan {
		return nil, malformed("a span size of %d bytes, of %d allowed", o.SpanSize, maxSpan)
	}
	t := &TOC{Version: version, BuildTool: o.BuildTool, SpanSize: o.SpanSize}
	r := bufio.NewReader(&obedient{ctx, blob})
	magic, err := r.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("zTOC: %w", err)
	}
	var s spanner
	if string(magic) == "\x1f\x8b" {
		t.Compression = Gzip
		s = newGzipSpanner(r, o.SpanSize)
	} else {
		t.Compression = Uncompressed
		s = newTarSpanner(r, o.SpanSize)
	}
	if err := t.build(s); err != nil {
		return nil, fmt.Errorf("zTOC: %w", err)
	}
	if err := t.checkAll(); err != nil {
		return nil, err
	}
	return t, nil
}

// spanner yields the tar of a layer, and notes spans while it is read.
type spanner interface {
	io.Reader
	// fault is the error that ended reading, other than io.EOF.
	fault() error
	// spans are what was noted, once the tar was read to its end, without the
	// lengths. size is that of the blob.
	spans() (spans []Span, size int64)
}

func (t *TOC) build(s spanner) error {
	p := &position{r: s}
	if err := t.list(p); err != nil {
		if fault := s.fault(); fault != nil {
			return fault
		}
		return err
	}
	t.UncompressedSize = p.off
	if _, err := io.Copy(io.Discard, p); err != nil {
		return err
	}
	t.Spans, t.CompressedSize = s.spans()
	if t.Compression == Uncompressed {
		digests := t.Spans
		t.grid()
		for i := range digests {
			t.Spans[i].Digest = digests[i].Digest
		}
		return nil
	}
	// A span of nothing but padding would be of negative length. Which bytes
	// count as the archive is of no consequence then, as long as it is all.
	if last := len(t.Spans) - 1; last >= 0 && t.Spans[last].Out > t.UncompressedSize {
		t.UncompressedSize = p.off
	}
	t.measure()
	return nil
}

// list takes in the entries of a tar.
func (t *TOC) list(p *position) error {
	tr := tar.NewReader(p)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformed("entry %d: %w", len(t.Files), err)
		}
		if len(t.Files) == maxFiles {
			return malformed("more than %d entries", maxFiles)
		}
		f, err := newFile(h, p.off)
		if err != nil {
			return malformed("entry %d, %.100q: %w", len(t.Files), h.Name, err)
		}
		t.Files = append(t.Files, f)
	}
}

func newFile(h *tar.Header, off int64) (File, error) {
	kind := fileTypeOf(h.Typeflag)
	switch {
	case kind == "":
		return File{}, fmt.Errorf("type %q, which zTOCs do not know", h.Typeflag)
	case h.Uid < 0 || h.Uid > math.MaxUint32 || h.Gid < 0 || h.Gid > math.MaxUint32:
		return File{}, fmt.Errorf("owner %d:%d", h.Uid, h.Gid)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, sparsePrefix) {
			return File{}, errSparse
		}
	}
	at := h.ModTime.UTC()
	if !expressible(at) {
		at = time.Time{}
	}
	return File{
		Name:     h.Name,
		Type:     kind,
		Offset:   off,
		Size:     h.Size,
		Linkname: h.Linkname,
		Mode:     h.Mode,
		UID:      uint32(h.Uid),
		GID:      uint32(h.Gid),
		Uname:    h.Uname,
		Gname:    h.Gname,
		ModTime:  at,
		Devmajor: h.Devmajor,
		Devminor: h.Devminor,
		PAX:      h.PAXRecords,
	}, nil
}

// fileTypeOf is the word for a type of tar entry, or nothing.
func fileTypeOf(flag byte) string {
	switch flag {
	case tar.TypeReg:
		return TypeReg
	case tar.TypeDir:
		return TypeDir
	case tar.TypeSymlink:
		return TypeSymlink
	case tar.TypeLink:
		return TypeHardlink
	case tar.TypeChar:
		return TypeChar
	case tar.TypeBlock:
		return TypeBlock
	case tar.TypeFifo:
		return TypeFifo
	}
	return ""
}

// position counts what was read.
type position struct {
	r   io.Reader
	off int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.off += int64(n)
	return n, err
}
