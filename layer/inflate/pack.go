package inflate

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// minGap is the length from which on a run of zeros is left out of a packed
// window, in bytes: below, writing down where it lies costs more.
const minGap = 4

// maxRuns bounds the runs of a packed window, in bytes. Pack needs less than half
// of it: a pair of runs is five bytes of the window or more, and takes two, and
// one more for a run of 128.
const maxRuns = WindowSize

// Packer compresses windows for keeping. Its zero value is ready to use.
//
// A packed window is two DEFLATE streams, one behind the other: of its runs, as
// varints by turns the length of a run of zeros and of one of other bytes; and
// of the other bytes. It packs Marked windows, mostly zeros, about a tenth
// smaller and ten times faster than DEFLATE of the window; an empty one is empty.
type Packer struct {
	w           *flate.Writer
	out         bytes.Buffer
	runs, bytes []byte
}

// Pack appends to dst the packed window, which is at most WindowSize long.
func (p *Packer) Pack(dst, window []byte) []byte {
	if len(window) == 0 {
		return dst
	}
	p.runs, p.bytes = p.runs[:0], p.bytes[:0]
	for len(window) > 0 {
		zeros := zerosAt(window)
		end := zeros
		for end < len(window) {
			gap := zerosAt(window[end:])
			if gap >= minGap {
				break
			}
			end += max(gap, 1)
		}
		p.runs = binary.AppendUvarint(p.runs, uint64(zeros))
		p.runs = binary.AppendUvarint(p.runs, uint64(end-zeros))
		p.bytes = append(p.bytes, window[zeros:end]...)
		window = window[end:]
	}
	p.out.Reset()
	p.deflate(p.runs)
	p.deflate(p.bytes)
	return append(dst, p.out.Bytes()...)
}

// zerosAt returns the number of zeros p begins with.
func zerosAt(p []byte) int {
	n := 0
	for n < len(p) && p[n] == 0 {
		n++
	}
	return n
}

// deflate appends the compressed data to out, a buffer, which takes everything.
func (p *Packer) deflate(data []byte) {
	if p.w == nil {
		w, err := flate.NewWriter(&p.out, flate.BestCompression)
		if err != nil {
			panic(err) // there is such a level
		}
		p.w = w
	}
	p.w.Reset(&p.out)
	_, _ = p.w.Write(data)
	_ = p.w.Close()
}

// Unpack appends to dst the window that Pack was given. It refuses, with
// ErrFormat, what unpacks to more than WindowSize bytes.
func Unpack(dst, packed []byte) ([]byte, error) {
	if len(packed) == 0 {
		return dst, nil
	}
	had := len(dst)
	dst, err := unpack(dst, packed)
	if err != nil {
		return dst[:had], fmt.Errorf("%w: packed window: %w", ErrFormat, err)
	}
	return dst, nil
}

// unpack is Unpack with errors that only say what is wrong.
func unpack(dst, packed []byte) ([]byte, error) {
	// A reader of single bytes: flate takes no more of it than it needs.
	src := bytes.NewReader(packed)
	r := flate.NewReader(src)
	runs, err := io.ReadAll(io.LimitReader(r, maxRuns+1))
	if err != nil {
		return dst, err
	}
	if len(runs) > maxRuns {
		return dst, fmt.Errorf("more than %d bytes of runs", maxRuns)
	}
	other := flate.NewReader(src)
	room := WindowSize
	for len(runs) > 0 {
		var n [2]int
		for i := range n {
			v, used := binary.Uvarint(runs)
			if used <= 0 || v > uint64(room) {
				return dst, fmt.Errorf("a run of %d in %d bytes", v, room)
			}
			n[i], runs = int(v), runs[used:]
			room -= n[i]
		}
		dst = append(dst, make([]byte, n[0]+n[1])...)
		if _, err := io.ReadFull(other, dst[len(dst)-n[1]:]); err != nil {
			return dst, err
		}
	}
	// The end of the second stream must be where both it and the runs say.
	if n, err := io.Copy(io.Discard, io.LimitReader(other, 1)); n > 0 || err != nil {
		return dst, errors.Join(errors.New("bytes behind the last run"), err)
	}
	if src.Len() > 0 {
		return dst, fmt.Errorf("%d bytes behind its end", src.Len())
	}
	return dst, nil
}
