package fs

import (
	"io"
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
	// ErrMountpoint: the directory cannot be mounted on. It comes with
	// io/fs.ErrNotExist, ErrMounted or ErrDeadMount where that is why.
	ErrMountpoint = sentinel.New("unusable mount point", errdefs.ErrFailedPrecondition)
	// ErrMounted: something is mounted on the directory.
	ErrMounted = sentinel.New("something is mounted there already", errdefs.ErrAlreadyExists)
	// ErrDeadMount: a FUSE mount whose server has gone is on the directory.
	ErrDeadMount = sentinel.New("a dead FUSE mount is there", errdefs.ErrAlreadyExists)
)

// Mounted is one of the file systems mounted on a directory.
type Mounted struct {
	Type   string // as mountinfo has it: "fuse.peel" is one of ours
	Source string
	Device string // "major:minor"; used anew once the file system is gone
}

// Ours reports whether it is an image that peel mounted.
func (m Mounted) Ours() bool { return m.Type == "fuse."+fsType }

// MountOptions say how to mount an image.
type MountOptions struct {
	// Source is what mountinfo shows as the mounted thing: the reference.
	Source string
	// AllowOther lets users other than the mounting one in. Ordinary users
	// need user_allow_other in /etc/fuse.conf for that.
	AllowOther bool
	// Trace gets a TraceLine, as JSON, for each read(2) that reaches the
	// server; nil: none. It is written to by one goroutine until the mount is
	// gone, in whole lines, and never again after an error.
	Trace io.Writer
	Log   *logrus.Entry
}

// ReadFailure is a read(2) on a mount that ended in EIO.
type ReadFailure struct {
	Time  time.Time `json:"time"`
	Path  string    `json:"path"`
	Error string    `json:"error"`
}
