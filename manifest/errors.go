package manifest

import (
	"strconv"

	"github.com/containerd/errdefs"
)

// Errors of this package, to be compared with errors.Is. Each also is an error
// of the class of containerd/errdefs that its comment names.
var (
	// ErrReference: not the name of an image (ErrInvalidArgument).
	ErrReference error = &sentinel{"invalid reference", errdefs.ErrInvalidArgument}
	// ErrPlatform: not the name of a platform (ErrInvalidArgument).
	ErrPlatform error = &sentinel{"invalid platform", errdefs.ErrInvalidArgument}
	// ErrNoPlatform: the image is not for the platform (ErrNotFound).
	ErrNoPlatform error = &sentinel{"no image for the platform", errdefs.ErrNotFound}
	// ErrVerify: bytes have not the size or digest that they should have
	// (ErrDataLoss).
	ErrVerify error = &sentinel{"verification failed", errdefs.ErrDataLoss}
	// ErrMalformed: a document breaks its format or a limit of this package
	// (ErrFailedPrecondition, as the user's argument is not at fault).
	ErrMalformed error = &sentinel{"malformed document", errdefs.ErrFailedPrecondition}
	// ErrUnsupported: a document, or a layer's type, that peel does not read
	// (ErrNotImplemented).
	ErrUnsupported error = &sentinel{"not supported", errdefs.ErrNotImplemented}
	// ErrArtifact: a manifest of something other than a container image
	// (ErrNotImplemented).
	ErrArtifact error = &sentinel{"not a container image", errdefs.ErrNotImplemented}
)

// sentinel has a class for programs without the class's words for people.
type sentinel struct {
	text  string
	class error
}

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Unwrap() error { return s.class }

// maxQuoted bounds, in bytes, what an error repeats of somebody else's text.
const maxQuoted = 128

// quote makes somebody else's text safe for a terminal, and short.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}
