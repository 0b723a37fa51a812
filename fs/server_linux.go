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
	log    *logrus.Entry
	conn   *conn
	done   chan struct{} // closed when nobody serves any more
	err    error         // of the serving; valid when done is closed
	failed atomic.Pointer[ReadFailure]
	trace  *tracer // nil: reads are not traced

	unserved func() // called when nothing is served any more, before the descriptor is closed; may be nil
}

// Mount shows m on dir and serves it until it is unmounted. It returns when
// the mount answers.
func Mount(ctx context.Context, m *Image, dir string, o MountOptions) (*Server, error) {
	s := newServer(dir, o)
	failed := func(row uint32, err error) { s.readFailed(m.Tree.Path(row), err) }
	files := newTable(m.Tree, m, failed)
	files.trace = s.trace
	if err := s.mount(ctx, files, o); err != nil {
		return nil, err
	}
	if err := s.serve(); err != nil { //nolint:contextcheck // what it may have to undo takes none
		return nil, err
	}
	return s, nil
}

func newServer(dir string, o MountOptions) *Server {
	s := &Server{dir: dir, log: o.Log, done: make(chan struct{})}
	if o.Trace != nil {
		s.trace = newTracer(o.Trace, o.Log)
	}
	return s
}

// mount shows files on the server's directory; serve must follow.
func (s *Server) mount(ctx context.Context, files fuse.RawFileSystem, o MountOptions) error {
	if err := errors.Join(CheckFUSE(), CheckMountpoint(s.dir)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	fd, err := mountFUSE(ctx, s.dir, o)
	if err != nil {
		return err
	}
	s.conn = newConn(fd, fuse.NewProtocolServer(files, s.protocol()))
	return nil
}

// serve begins to serve, and returns when the mount answers.
func (s *Server) serve() error {
	if s.trace != nil {
		s.trace.begin()
	}
	s.conn.start()
	go func() { // ends when the mount does
		defer close(s.done)
		s.err = s.conn.wait()
		if s.trace != nil {
			s.trace.close() // before what is read from is closed
		}
		if s.unserved != nil {
			s.unserved()
		}
		s.err = errors.Join(s.err, unix.Close(s.conn.fd))
		if s.err != nil { // perhaps it is there still
			s.err = errors.Join(s.err, detachDead(s.dir))
		}
	}()
	top, _, err := topmost(s.dir)
	s.device = top.Device
	if err := errors.Join(err, settle(s.dir)); err != nil {
		return errors.Join(err, s.Detach())
	}
	if s.trace != nil {
		s.trace.answered()
	}
	return nil
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

func (s *Server) readFailed(path string, err error) {
	f := &ReadFailure{Time: time.Now(), Path: path, Error: err.Error()}
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
