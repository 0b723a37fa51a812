// Package reuse asks: does the next version of an image fetch what changed, and
// no more?
//
// Images are of Debian packages, one of which is newer in the second version. A
// proxy before the registry counts bytes on the wire.
package reuse
