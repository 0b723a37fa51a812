package remote

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// maxSkip is how many bytes in front of a range are read and thrown away when
// a server ignores Range, before that is called a failure.
const maxSkip = 1 << 20

var errContentRange = errors.New("malformed Content-Range")

// window is the part [off, off+n) of a blob of size bytes.
type window struct{ off, n, size int64 }

// header is the Range header of RFC 9110 section 14.2, empty if the window is
// the whole blob: a plain GET is served by every registry and cache.
func (w window) header() string {
	if w.off == 0 && w.n == w.size {
		return ""
	}
	return fmt.Sprintf("bytes=%d-%d", w.off, w.off+w.n-1)
}

// contentRange is the header of RFC 9110 section 14.4. The size is -1 if not
// told ("*"); first and last are -1 in an answer of status 416 ("*/size").
type contentRange struct{ first, last, size int64 }

// parseContentRange reads
//
//	Content-Range = range-unit SP ( range-resp / unsatisfied-range )
//	range-resp    = first-pos "-" last-pos "/" ( complete-length / "*" )
//	unsatisfied   = "*/" complete-length
//
// for the unit "bytes". It guarantees first <= last, and last < size if the
// size is told.
func parseContentRange(s string) (contentRange, error) {
	bad := contentRange{-1, -1, -1}
	unit, rest, ok := strings.Cut(s, " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return bad, fmt.Errorf("%w %.60q", errContentRange, s)
	}
	positions, length, ok := strings.Cut(rest, "/")
	if !ok {
		return bad, fmt.Errorf("%w %.60q", errContentRange, s)
	}
	size, err := digits(length)
	if length == "*" {
		size, err = -1, nil
	}
	if err != nil || positions == "*" && size < 0 {
		return bad, fmt.Errorf("%w %.60q", errContentRange, s)
	}
	if positions == "*" {
		return contentRange{-1, -1, size}, nil
	}
	from, to, ok := strings.Cut(positions, "-")
	first, err1 := digits(from)
	last, err2 := digits(to)
	if !ok || err1 != nil || err2 != nil || first > last || size >= 0 && last >= size {
		return bad, fmt.Errorf("%w %.60q", errContentRange, s)
	}
	return contentRange{first, last, size}, nil
}

// digits reads 1*DIGIT. The largest number is left out so that last+1 and
// lengths cannot overflow.
func digits(s string) (int64, error) {
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil || v == math.MaxInt64 {
		return 0, errContentRange
	}
	return int64(v), nil
}

// piece says what of an answer's body belongs to the window: after skip bytes,
// the next n. n may be less than was asked for, and is at least 1.
type piece struct{ skip, n int64 }

// head is what the status line and header of an answer say of its body.
type head struct {
	status int
	crange string // Content-Range
	length int64  // Content-Length, -1 if not told
}

// pick compares an answer with what was asked for (RFC 9110 section 15.3.7).
// Some caches answer 200 with a Content-Range; the header is believed then.
func (w window) pick(h head) (piece, error) {
	switch {
	case h.status == http.StatusPartialContent, h.status == http.StatusOK && h.crange != "":
		return w.pickPart(h.crange)
	case h.status == http.StatusOK:
		return w.pickWhole(h.length)
	case h.status == http.StatusRequestedRangeNotSatisfiable:
		if r, err := parseContentRange(h.crange); err == nil && r.size >= 0 && r.size != w.size {
			return piece{}, w.wrongSize(r.size)
		}
		return piece{}, &fault{class: ErrRange, text: "refuses bytes " + w.String() + " (416)"}
	default:
		return piece{}, &fault{class: ErrRange, text: fmt.Sprintf("answers bytes %s with status %d", w, h.status)}
	}
}

func (w window) pickPart(crange string) (piece, error) {
	r, err := parseContentRange(crange)
	if err != nil {
		return piece{}, &fault{class: ErrRange, text: "answers bytes " + w.String(), cause: err}
	}
	if r.size >= 0 && r.size != w.size {
		return piece{}, w.wrongSize(r.size)
	}
	if r.first != w.off || r.last >= w.off+w.n {
		return piece{}, &fault{class: ErrRange, text: fmt.Sprintf("answers bytes %s with Content-Range %.60q", w, crange)}
	}
	return piece{n: r.last - r.first + 1}, nil
}

func (w window) pickWhole(length int64) (piece, error) {
	if length >= 0 && length != w.size {
		return piece{}, w.wrongSize(length)
	}
	if w.off > maxSkip {
		return piece{}, &fault{class: ErrRange, text: "ignores Range (asked for bytes " + w.String() + ", sends the whole blob)"}
	}
	return piece{skip: w.off, n: w.n}, nil
}

func (w window) wrongSize(got int64) error {
	return &fault{class: ErrVerify, text: fmt.Sprintf("holds %d bytes where the manifest says %d", got, w.size)}
}

func (w window) String() string { return fmt.Sprintf("%d-%d", w.off, w.off+w.n-1) }
