package convert

import "io"

// tap is the stream that archive/tar reads. It hands on to raw what was read
// of it, or, while a file's data is read, notes which of the bytes come from
// the stream: those of a sparse file's holes do not.
type tap struct {
	src io.Reader
	pos int64 // bytes read
	raw func([]byte) error

	data   []byte // what file data is read into; nil while headers are read
	pieces []piece
}

// piece is a run of bytes of tap.data that the stream has.
type piece struct{ off, n int }

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.src.Read(p)
	t.pos += int64(n)
	switch {
	case n == 0:
	case t.data == nil:
		if err := t.raw(p[:n]); err != nil {
			return n, err
		}
	default:
		// archive/tar reads data straight into parts of the buffer that it is
		// given, and parts of a slice keep the end of its capacity.
		t.note(cap(t.data)-cap(p), n)
	}
	return n, err
}

func (t *tap) note(off, n int) {
	if last := len(t.pieces) - 1; last >= 0 && t.pieces[last].off+t.pieces[last].n == off {
		t.pieces[last].n += n
		return
	}
	t.pieces = append(t.pieces, piece{off, n})
}

// fill fills buf with file data and returns which of its bytes the stream has,
// in order, valid until the next call.
func (t *tap) fill(file io.Reader, buf []byte) ([]piece, error) {
	t.data, t.pieces = buf[:len(buf):len(buf)], t.pieces[:0]
	defer func() { t.data = nil }()
	if _, err := io.ReadFull(file, t.data); err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	} else if err != nil {
		return nil, err
	}
	return t.pieces, nil
}
