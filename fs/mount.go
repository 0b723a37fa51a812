package fs

import (
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/sentinel"
)

// fsType is the subtype of our mounts: mountinfo shows "fuse.peel".
const fsType = "peel"

// Errors of mounting.
var (
	// ErrNoFUSE: this machine or this process cannot mount FUSE file systems.
	ErrNoFUSE = sentinel.New("FUSE is not available", errdefs.ErrFailedPrecondition)
	// ErrMountpoint: the directory cannot be mounted on.
	ErrMountpoint = sentinel.New("unusable mount point", errdefs.ErrFailedPrecondition)
)

// MountOptions say how to mount an image.
type MountOptions struct {
	// Source is what mountinfo shows as the mounted thing: the reference.
	Source string
	// AllowOther lets users other than the mounting one in. Ordinary users
	// need user_allow_other in /etc/fuse.conf for that.
	AllowOther bool
	Log        *logrus.Entry
}

// ReadFailure is a read(2) on a mount that ended in EIO.
type ReadFailure struct {
	Time  time.Time `json:"time"`
	Path  string    `json:"path"`
	Error string    `json:"error"`
}
