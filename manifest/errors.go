package manifest

import (
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of this package, to be compared with errors.Is. Each also is an error
// of the class of containerd/errdefs that its comment names.
var (
	// ErrReference: not the name of an image (ErrInvalidArgument).
	ErrReference = sentinel.New("invalid reference", errdefs.ErrInvalidArgument)
	// ErrPlatform: not the name of a platform (ErrInvalidArgument).
	ErrPlatform = sentinel.New("invalid platform", errdefs.ErrInvalidArgument)
	// ErrNoPlatform: the image is not for the platform (ErrNotFound).
	ErrNoPlatform = sentinel.New("no image for the platform", errdefs.ErrNotFound)
	// ErrVerify: bytes have not the size or digest that they should have
	// (ErrDataLoss).
	ErrVerify = sentinel.New("verification failed", errdefs.ErrDataLoss)
	// ErrMalformed: a document breaks its format or a limit of this package
	// (ErrFailedPrecondition, as the user's argument is not at fault).
	ErrMalformed = sentinel.New("malformed document", errdefs.ErrFailedPrecondition)
	// ErrUnsupported: a document, or a layer's type, that peel does not read
	// (ErrNotImplemented).
	ErrUnsupported = sentinel.New("not supported", errdefs.ErrNotImplemented)
	// ErrArtifact: a manifest of something other than a container image
	// (ErrNotImplemented).
	ErrArtifact = sentinel.New("not a container image", errdefs.ErrNotImplemented)
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
