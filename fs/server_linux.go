package fs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Server is an image mounted and served by this process.
type Server struct {
	dir    string
	device string // "major:minor", as mountinfo has it
	image  *Image
	log    *logrus.Entry
	conn   *conn
	done   chan struct{} // closed when nobody serves any more
	err    error         // of the serving; valid when done is closed
	failed atomic.Pointer[ReadFailure]
}

// Mount shows m on dir and serves it until it is unmounted. It returns when
// the mount answers.
func Mount(ctx context.Context, m *Image, dir string, o MountOptions) (*Server, error) {
	if err := errors.Join(CheckFUSE(), CheckMountpoint(dir)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := mountFUSE(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, image: m, log: o.Log, done: make(chan struct{})}
	s.conn = newConn(fd, fuse.NewProtocolServer(newTable(m.Tree, m, s.readFailed), s.protocol()))
	s.conn.start()
	go func() { //nolint:contextcheck // ends when the mount does, and takes no context
		defer close(s.done)
		s.err = errors.Join(s.conn.wait(), unix.Close(fd))
		if s.err != nil { // perhaps it is there still
			s.err = errors.Join(s.err, detachDead(dir))
		}
	}()
	top, _, err := topmost(dir)
	s.device = top.Device
	if err := errors.Join(err, settle(dir)); err != nil {
		return nil, errors.Join(err, s.Detach()) //nolint:contextcheck // it takes none
	}
	return s, nil
}

// Device is the mount's device number, "major:minor": no other file system
// has it for as long as this one is served.
func (s *Server) Device() string { return s.device }

// protocol is what INIT negotiates.
func (s *Server) protocol() *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxWrite:                 maxRequest, // go-fuse derives the largest read from it
		MaxReadAhead:             maxRequest,
		MaxBackground:            64,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HAS_RESEND,
		Logger:                   log.New(debugLog{s.log}, "", 0),
		PanicHandler: func(p any) fuse.Status {
			s.log.WithField("panic", p).Errorf("request answered with EIO\n%s", debug.Stack())
			return fuse.EIO
		},
	}
}

// debugLog passes go-fuse's complaints about single requests on.
type debugLog struct{ log *logrus.Entry }

func (d debugLog) Write(p []byte) (int, error) {
	d.log.Debug(strings.TrimSpace(string(p)))
	return len(p), nil
}

// settle returns when the mount on dir has answered, and tunes it.
//
// It also has the kernel learn that there is nothing to poll(2): a Go program
// polls every file that it opens, without letting go of its processor, and a
// process that opens files of a mount of its own could have none left for the
// answer. go-fuse answers for the name used here.
func settle(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("%s: the mount does not answer: %w", dir, err)
	}
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: the mount does not answer: %w", dir, err)
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return errors.Join(err, unix.Close(fd), raiseReadAhead(st.Dev))
}

func (s *Server) readFailed(row uint32, err error) {
	f := &ReadFailure{Time: time.Now(), Path: s.image.Tree.Path(row), Error: err.Error()}
	s.failed.Store(f)
	s.log.WithError(err).WithField("path", f.Path).Error("read answered with EIO")
}

// LastFailure returns the latest read that ended in EIO, or nil.
func (s *Server) LastFailure() *ReadFailure { return s.failed.Load() }

// Done is closed when the mount is gone and nothing is served any more.
func (s *Server) Done() <-chan struct{} { return s.done }

// Wait returns when the mount is gone.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// Unmount removes the mount and waits until it is gone.
func (s *Server) Unmount() error {
	if err := Unmount(s.dir); err != nil {
		return err
	}
	return s.Wait()
}

// Detach removes the mount whoever uses it, and waits until nobody is served
// any more. It is for mounts that nobody was told of yet.
func (s *Server) Detach() error {
	top, ok, err := topmost(s.dir)
	if err != nil {
		return err
	}
	if !ok || top.Device != s.device {
		return s.Wait() // somebody was faster
	}
	if err := detach(s.dir); err != nil {
		return err
	}
	// fusermount3 cannot do what MNT_FORCE does, but a mount's owner may.
	_, minor, _ := strings.Cut(s.device, ":")
	err = os.WriteFile(filepath.Join("/sys/fs/fuse/connections", minor, "abort"), []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // aborted already, or fusectl is not mounted
		s.log.WithError(err).Warn("whoever is in the mount keeps it until they leave")
	}
	return s.Wait()
}
