//go:build !linux

package fs

import (
	"context"
	"errors"
)

// Server is an image mounted and served by this process.
type Server struct{}

// Mount is for Linux only.
func Mount(context.Context, *Image, string, MountOptions) (*Server, error) { return nil, ErrNoFUSE }

// CheckMountpoint is for Linux only.
func CheckMountpoint(string) error { return ErrNoFUSE }

// CheckFUSE is for Linux only.
func CheckFUSE() error { return ErrNoFUSE }

// Unmount is for Linux only.
func Unmount(string) error { return ErrNoFUSE }

// MountsOn is for Linux only.
func MountsOn(string) ([]Mounted, error) { return nil, ErrNoFUSE }

// Answers is for Linux only.
func Answers(string) bool { return false }

// Device returns nothing: there is no mount.
func (*Server) Device() string { return "" }

// LastFailure returns the latest read that ended in EIO, or nil.
func (*Server) LastFailure() *ReadFailure { return nil }

// Done is closed when the mount is gone and nothing is served any more.
func (*Server) Done() <-chan struct{} { return nil }

// Wait returns when the mount is gone.
func (*Server) Wait() error { return errors.ErrUnsupported }

// Unmount removes the mount and waits until it is gone.
func (*Server) Unmount() error { return errors.ErrUnsupported }

// Detach removes the mount.
func (*Server) Detach() error { return errors.ErrUnsupported }
