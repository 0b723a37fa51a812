//go:build !linux

package fs

import "context"

// MountEarly is for Linux only.
func MountEarly(context.Context, *Early, string, MountOptions) (*Server, error) {
	return nil, ErrNoFUSE
}
