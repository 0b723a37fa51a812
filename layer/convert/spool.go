package convert

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/stargz-snapshotter/estargz"
)

// spool is a layer's tar in a temporary file, with a list of its entries.
type spool struct {
	f     *os.File
	items []item
}

// item is an entry of the tar.
type item struct {
	name, link string // clean
	start, end int64  // from its first header to the end of its data
	kind       byte   // of tar.Header.Typeflag
}

// newSpool reads a tar whole. The caller closes the spool.
func newSpool(in io.Reader, dir string) (s *spool, err error) {
	f, err := os.CreateTemp(dir, "convert-*")
	if err != nil {
		return nil, err
	}
	s = &spool{f: f}
	defer func() {
		if err != nil {
			s, err = nil, errors.Join(err, s.Close())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := s.read(&tap{src: in, raw: func(p []byte) error {
		_, err := w.Write(p)
		return err
	}}); err != nil {
		return s, err
	}
	return s, w.Flush()
}

// Close removes the file. Whoever sweeps the folder may have done so already.
func (s *spool) Close() error {
	err := s.f.Close()
	if gone := os.Remove(s.f.Name()); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

func (s *spool) read(t *tap) error {
	var q quota
	tr := tar.NewReader(t)
	for {
		start := align(t.pos)
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badTar(start, err)
		}
		if err := s.add(h, start, &q); err != nil {
			return about(h.Name, err)
		}
		if _, err := io.Copy(io.Discard, tr); err != nil { //nolint:gosec // the quota bounds it
			return about(h.Name, badTar(t.pos, err))
		}
		if n := len(s.items); n > 0 && s.items[n-1].start == start {
			s.items[n-1].end = t.pos
		}
	}
	if _, err := io.Copy(io.Discard, t); err != nil {
		return badTar(t.pos, err)
	}
	return nil
}

// add lists an entry that starts at start and whose end is to come.
func (s *spool) add(h *tar.Header, start int64, q *quota) error {
	if err := q.spend(len(h.Name)+len(h.Linkname), h.Size); err != nil {
		return err
	}
	if skipped(h) {
		return nil
	}
	if _, err := newTOCEntry(h); err != nil {
		return err
	}
	it := item{name: clean(h.Name), start: start, kind: h.Typeflag}
	if h.Typeflag == tar.TypeLink {
		it.link = clean(h.Linkname)
	}
	s.items = append(s.items, it)
	return nil
}

// skipped are entries that an eStargz layer does not have, or has of its own.
func skipped(h *tar.Header) bool {
	own := []string{estargz.PrefetchLandmark, estargz.NoPrefetchLandmark, estargz.TOCTarName}
	return h.Typeflag == tar.TypeXGlobalHeader || slices.Contains(own, clean(h.Name))
}

// open returns the header of an entry and a reader of its data, holes filled.
func (s *spool) open(it item) (*tar.Header, io.Reader, error) {
	tr := tar.NewReader(io.NewSectionReader(s.f, it.start, it.end-it.start))
	h, err := tr.Next()
	return h, tr, err
}

func align(n int64) int64 { return (n + 511) &^ 511 }
