package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

// streamSpan is the length of a streamed layer's spans, bytes.
const streamSpan = 1 << 20

// blobReader passes a whole blob on, hashing and counting it.
type blobReader struct {
	rangeReader
	sum  hash.Hash
	done *atomic.Int64 // bytes passed, for those who watch
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.rangeReader.Read(p)
	b.sum.Write(p[:n])
	b.done.Add(int64(n))
	return n, err
}

// errTooLong: a blob inflates beyond all measure, so that the rest of it is
// not worth reading.
var errTooLong = errors.New("decompressed layer")

// inflater yields the uncompressed bytes of a blob, whatever the compression.
type inflater struct {
	io.Reader
	format FormatID
	close  func()
	left   int64 // bytes that may still come
	most   int64 // bytes that may come at all
}

// newInflater looks at the first bytes of a blob of size bytes to tell its
// compression: media types lie, magic numbers do not. The caller calls close.
func newInflater(r io.Reader, size int64) (*inflater, error) {
	most := min(maxAddr, freeRatio+maxRatio*min(size, maxAddr))
	in := &inflater{Reader: r, format: FormatTar, close: func() {}, left: most, most: most}
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	in.Reader = br
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}): // RFC 1952, section 2.3.1
		in.format = FormatGzip
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		in.Reader = zr
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), // RFC 8878, sections 3.1.1 and 3.1.2
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		in.format = FormatZstd
		zr, err := newZstd(br)
		if err != nil {
			return nil, err
		}
		in.Reader, in.close = zr, zr.Close
	}
	return in, nil
}

// fill fills p as far as the stream reaches. io.EOF, with or without bytes, is
// the end of the stream and nothing else.
func (in *inflater) fill(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = in.Read(p[n:])
		n += m
	}
	if in.left -= int64(n); in.left < 0 {
		return n, fmt.Errorf("%w: %w", errTooLong, limit("bytes", in.most-in.left, in.most))
	}
	return n, err
}
