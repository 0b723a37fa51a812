package layer

import (
	"errors"
	"io"
	"sync/atomic"
)

// InPlace returns a Store that keeps nothing: it reads the address space of a
// layer straight from the layer's blob, which has to be on this machine. A span
// is present once its bytes were verified since; it is a [Rechecker], so that a
// [Layer] does that when the span is first read. It returns false unless the
// address space is the blob itself. Nobody may change the blob meanwhile.
func InPlace(x *Index, at io.ReaderAt) (Store, bool) {
	if !x.isBlob() {
		return nil, false
	}
	return &inPlace{at: at, confirmed: make([]atomic.Uint64, (len(x.Spans)+63)/64)}, true
}

// isBlob reports whether each address is the byte of the blob with that number.
func (x *Index) isBlob() bool {
	if x.Info.Format != FormatTar && x.Info.Format != FormatFile || x.Info.AddrSize > x.Info.BlobSize {
		return false
	}
	for i := range x.Spans {
		s := &x.Spans[i]
		if s.Off != s.Addr || s.CLen != s.Len || x.Chunks[s.Chunks.First].Inner != 0 {
			return false
		}
	}
	return true
}

// inPlace is a Store over a blob.
type inPlace struct {
	at        io.ReaderAt
	confirmed []atomic.Uint64 // a bit for each span
}

func (s *inPlace) Has(span int) bool {
	return s.confirmed[span/64].Load()&(1<<(span%64)) != 0
}

func (s *inPlace) Read(p []byte, addr int64, first, n int) (bool, error) {
	for i := first; i < first+n; i++ {
		if !s.Has(i) {
			return false, nil
		}
	}
	return s.fill(p, addr)
}

// fill reports false if the blob ends before p.
func (s *inPlace) fill(p []byte, addr int64) (bool, error) {
	n, err := s.at.ReadAt(p, addr)
	switch {
	case n == len(p):
		return true, nil
	case errors.Is(err, io.EOF):
		return false, nil
	}
	return false, err
}

// Put takes note of a span whose bytes were read from the same blob.
func (s *inPlace) Put(span int, _ int64, _ []byte) error {
	s.Confirm(span)
	return nil
}

func (s *inPlace) Recheck(_ int, addr int64, p []byte) (bool, error) { return s.fill(p, addr) }

func (s *inPlace) Confirm(span int) { s.confirmed[span/64].Or(1 << (span % 64)) }
