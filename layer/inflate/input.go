package inflate

import "io"

// maxEmptyReads is how often in a row a source may return nothing and no error.
const maxEmptyReads = 100

// fill reads more input, in being used up, and reports whether there is any.
func (z *Reader) fill() (bool, error) {
	if z.ended || z.srcErr != nil {
		return false, z.srcErr
	}
	z.inOff += int64(z.inEnd)
	z.ip, z.inEnd = 0, 0
	for range maxEmptyReads {
		n, err := z.src.Read(z.in[:])
		z.inEnd = n
		if err == io.EOF {
			z.ended = true
		} else {
			z.srcErr = err
		}
		if n > 0 {
			return true, nil
		}
		if err != nil {
			return false, z.srcErr
		}
	}
	z.srcErr = io.ErrNoProgress
	return false, z.srcErr
}

// more is fill where the stream must not end.
func (z *Reader) more() error {
	ok, err := z.fill()
	if !ok && err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// need takes bytes from in until there are n bits, at most 48.
func (z *Reader) need(n uint) error {
	for z.nbits < n {
		if z.ip == z.inEnd {
			if err := z.more(); err != nil {
				return err
			}
		}
		z.bits |= uint64(z.in[z.ip]) << z.nbits
		z.ip++
		z.nbits += 8
	}
	return nil
}

// drop uses up n bits that are there.
func (z *Reader) drop(n uint) {
	z.bits >>= n
	z.nbits -= n
}

// take returns the next n bits, at most 48.
func (z *Reader) take(n uint) (uint, error) {
	if err := z.need(n); err != nil {
		return 0, err
	}
	v := uint(z.bits & (1<<n - 1))
	z.drop(n)
	return v, nil
}

// align drops what is left of a byte begun.
func (z *Reader) align() { z.bits, z.nbits = 0, 0 }

// readFull fills p from byte-aligned input.
func (z *Reader) readFull(p []byte) error {
	for len(p) > 0 {
		if z.ip == z.inEnd {
			if err := z.more(); err != nil {
				return err
			}
		}
		n := copy(p, z.in[z.ip:z.inEnd])
		z.ip += n
		p = p[n:]
	}
	return nil
}
