package local

import (
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of this package, to be compared with errors.Is. Each also is an error
// of the class of containerd/errdefs that its comment names.
var (
	// ErrNotFound: no such place, image or blob (ErrNotFound).
	ErrNotFound = sentinel.New("not found", errdefs.ErrNotFound)
	// ErrAmbiguous: the place has several images and the reference does not
	// say which (ErrInvalidArgument).
	ErrAmbiguous = sentinel.New("several images", errdefs.ErrInvalidArgument)
	// ErrMalformed: what lies there breaks its format or a limit of this
	// package (ErrFailedPrecondition).
	ErrMalformed = sentinel.New("malformed", errdefs.ErrFailedPrecondition)
	// ErrUnsupported: a form that is not read (ErrNotImplemented). Only Open
	// and List return it, so that it never means that there are no ranges.
	ErrUnsupported = sentinel.New("not supported", errdefs.ErrNotImplemented)
	// ErrVerify: bytes have not the size or digest that they should have
	// (ErrDataLoss).
	ErrVerify = sentinel.New("verification failed", errdefs.ErrDataLoss)
	// ErrChanged: a file is no longer what it was when it was opened
	// (ErrFailedPrecondition).
	ErrChanged = sentinel.New("changed since it was opened", errdefs.ErrFailedPrecondition)
)

// maxQuoted bounds, in bytes, what an error repeats of somebody else's text.
const maxQuoted = 128

// quote makes somebody else's text safe for a terminal, and short.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}
