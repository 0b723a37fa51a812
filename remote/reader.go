package remote

import (
	"errors"
	"io"
)

// part is one answer's share of a range: after skip bytes of the body, left
// more.
type part struct {
	body       io.ReadCloser
	host       string
	skip, left int64
	dog        *watchdog   // of the body
	got        int64       // bytes delivered
	lost       func()      // told when the body dies
	progress   func(int64) // told of bytes delivered
}

// Read returns io.EOF after the part's last byte, and a transient fault if the
// body ends before it.
func (p *part) Read(b []byte) (int, error) {
	if p.skip > 0 {
		n, err := io.CopyN(io.Discard, p.body, p.skip)
		p.skip -= n
		if err != nil {
			return 0, p.early(err)
		}
	}
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.body.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	p.got += int64(n)
	p.progress(int64(n))
	if errors.Is(err, io.EOF) && p.left == 0 {
		err = nil
	}
	return n, p.early(err)
}

func (p *part) early(err error) error {
	if err == nil {
		return nil
	}
	return partFault(p.host, err)
}

// partFault is the fault of a body that ended before its time.
func partFault(host string, err error) error {
	if f := (*fault)(nil); errors.As(err, &f) {
		return f
	}
	return transportFault(host, err)
}

// rangeReader strings parts together until the range is complete. Its funcs
// hold the context of the ReadRange that made it, which bounds its life.
type rangeReader struct {
	open   func(off, n int64) (*part, error)
	resume func(error) error // nil after the wait that the error asks for
	wrap   func(error) error

	off, end int64
	cur      *part
	err      error // why no more can be read
}

func (r *rangeReader) Read(p []byte) (int, error) {
	for {
		switch {
		case r.err != nil:
			return 0, r.err
		case r.off == r.end:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		n, err := r.cur.Read(p)
		r.off += int64(n)
		if r.off == r.end {
			r.close()
			return n, nil
		}
		if err != nil {
			r.err = r.proceed(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// proceed opens the rest of the range after a part ended, early or not. A
// server that cuts ranges short is asked on at once as long as it gives a
// fair number of bytes each time.
func (r *rangeReader) proceed(err error) error {
	got := r.cur.got
	r.close()
	if errors.Is(err, io.EOF) && got < minProgress {
		err = transportFault(r.cur.host, io.ErrUnexpectedEOF)
	}
	if !errors.Is(err, io.EOF) {
		r.cur.lost()
		if err := r.resume(err); err != nil {
			return r.wrap(err)
		}
	}
	if err := r.reopen(); err != nil {
		return r.wrap(err)
	}
	return nil
}

func (r *rangeReader) reopen() error {
	if r.off == r.end {
		return nil
	}
	var err error
	r.cur, err = r.open(r.off, r.end-r.off)
	return err
}

// close ends the current part. Its error says nothing: the bytes are read.
func (r *rangeReader) close() {
	if r.cur != nil && r.cur.body != nil {
		r.cur.body.Close() //nolint:errcheck // see above
		r.cur.body = nil
	}
}

// Close may be called more than once.
func (r *rangeReader) Close() error {
	r.close()
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
	return nil
}
