package layer

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

const tarBlock = 512

// tarParser makes headers of a tar stream.
type tarParser struct {
	b     *Builder
	watch Watcher // may be nil
	sum   fileSum
	err   error // ErrMalformed: what is wrong with the tar
}

func newTarParser(w Watcher) *tarParser {
	return &tarParser{b: NewBuilder(), watch: w, sum: fileSum{hash: sha256.New(), inode: None}}
}

// run parses the stream to its end of archive or to the first fault.
func (p *tarParser) run(r *blockReader) {
	tr := tar.NewReader(r)
	r.data = p.sum.write
	for next := int64(0); ; {
		r.keepFrom(next)
		h, err := tr.Next()
		p.sum.end(p.b)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.err = malformed("tar header at %d: %w", next, err)
			return
		}
		e := &tarEntry{h: h, head: r.kept, start: next, data: r.pos, phys: h.Size}
		if err := p.add(e); err != nil {
			p.err = err
			return
		}
		next = align(e.data + e.phys)
	}
}

// tarEntry is an entry of a tar where the parser stands at its data.
type tarEntry struct {
	h     *tar.Header
	head  []byte // all blocks from the first header of the entry to its data
	start int64  // where head lies in the tar
	data  int64  // where the data lies in the tar
	phys  int64  // bytes of data in the tar
}

func (p *tarParser) add(e *tarEntry) error {
	if e.h.Typeflag == tar.TypeXGlobalHeader {
		e.phys = 0 // defaults for entries to come, which no builder of images writes
		return nil
	}
	h, err := e.header()
	if err != nil {
		return malformed("%q: %w", clip(e.h.Name), err)
	}
	if err := p.b.Add(h); err != nil {
		return err
	}
	p.sum.begin(p.b.lastAdded, h, e)
	if p.watch != nil {
		p.watch.Header(h)
	}
	return nil
}

func (e *tarEntry) header() (*Header, error) {
	t := e.h
	h := &Header{
		Name: t.Name, Link: t.Linkname, Mode: uint32(t.Mode) & permMask,
		MtimeSec: t.ModTime.Unix(), MtimeNsec: uint32(t.ModTime.Nanosecond()),
	}
	switch t.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		h.Mode |= typeRegular
		h.Size, h.Addr = t.Size, e.data
	case tar.TypeDir:
		h.Mode |= typeDir
	case tar.TypeSymlink:
		h.Mode |= typeSymlink
	case tar.TypeLink:
		h.Hardlink = true
	case tar.TypeChar:
		h.Mode |= typeChar
	case tar.TypeBlock:
		h.Mode |= typeBlock
	case tar.TypeFifo:
		h.Mode |= typeFifo
	default:
		return nil, fmt.Errorf("entry of type %q", t.Typeflag)
	}
	if h.Mode&typeMask != typeRegular {
		e.phys = 0 // whatever the header says
	}
	var err error
	if h.Xattrs, err = xattrs(t.PAXRecords); err != nil {
		return nil, err
	}
	if err := h.setNumbers(int64(t.Uid), int64(t.Gid), t.Devmajor, t.Devminor); err != nil {
		return nil, err
	}
	return h, e.setSparse(h)
}

// Prefixes of PAX records that hold extended attributes.
const (
	schilyXattr     = "SCHILY.xattr."
	libarchiveXattr = "LIBARCHIVE.xattr."
)

// xattrs returns the extended attributes among PAX records. libarchive writes
// both forms; its own has names escaped as in URLs and values in base64.
func xattrs(records map[string]string) (map[string]string, error) {
	var found map[string]string
	set := func(name, value string) {
		if found == nil {
			found = make(map[string]string)
		}
		found[name] = value
	}
	for key, value := range records {
		escaped, ok := strings.CutPrefix(key, libarchiveXattr)
		if !ok {
			continue
		}
		name, err := url.PathUnescape(escaped)
		if err != nil {
			return nil, fmt.Errorf("xattr %q: %w", clip(escaped), err)
		}
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			return nil, fmt.Errorf("xattr %q: %w", clip(name), err)
		}
		set(name, string(raw))
	}
	for key, value := range records {
		if name, ok := strings.CutPrefix(key, schilyXattr); ok {
			set(name, value)
		}
	}
	return found, nil
}

// maxHead bounds the header blocks kept of one entry, bytes: archive/tar takes
// no extended header and no sparse map of more than 1 MiB.
const maxHead = 8 << 20

// blockReader reads a stream that comes in buffers, keeps the header blocks of
// the entry at hand, and skips data without touching it.
type blockReader struct {
	next    func() ([]byte, error)
	release func([]byte)
	data    func(p []byte, pos int64) // sees all of it

	whole []byte // the buffer being read
	rest  []byte // of whole
	pos   int64  // in the stream
	from  int64  // what lies before is not kept
	kept  []byte
}

// keepFrom keeps what is read from then on, of the stream's bytes at and
// after off.
func (r *blockReader) keepFrom(off int64) { r.from, r.kept = off, r.kept[:0] }

func (r *blockReader) more() error {
	if len(r.rest) > 0 {
		return nil
	}
	if r.whole != nil {
		r.release(r.whole)
		r.whole = nil
	}
	buf, err := r.next()
	if err != nil {
		return err
	}
	r.whole, r.rest = buf, buf
	return nil
}

func (r *blockReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.more(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.data(p[:n], r.pos)
	if skip := max(0, r.from-r.pos); skip < int64(n) {
		if len(r.kept) > maxHead {
			return 0, limit("bytes of an entry's headers", int64(len(r.kept)), maxHead)
		}
		r.kept = append(r.kept, p[skip:n]...)
	}
	r.pos += int64(n)
	r.rest = r.rest[n:]
	return n, nil
}

// Seek is what archive/tar skips data with: forward from where it stands, or
// to the end of the stream if that comes first.
func (r *blockReader) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || off < 0 {
		return 0, errors.ErrUnsupported
	}
	for off > 0 {
		err := r.more()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		n := min(off, int64(len(r.rest)))
		r.data(r.rest[:n], r.pos)
		r.rest = r.rest[n:]
		r.pos += n
		off -= n
	}
	return r.pos, nil
}

// drain reads to the end of the stream.
func (r *blockReader) drain() error {
	for {
		r.rest = nil
		if err := r.more(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func align(n int64) int64 { return (n + tarBlock - 1) &^ (tarBlock - 1) }
