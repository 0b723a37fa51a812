package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs"
)

const (
	// leashFD is the server's end of the socket to the peel mount that
	// started it.
	leashFD = 3
	// undoTimeout is how long a server may take to clean up when it is told to.
	undoTimeout = 15 * time.Second
)

// message is one JSON line from a server to who started it. The other way goes
// one with the secrets, and one byte when Ready was seen; from then on the mount
// stands.
type message struct {
	Progress []fs.LayerProgress `json:"progress,omitempty"`
	Ready    *mounted           `json:"ready,omitempty"`
	Error    *failure           `json:"error,omitempty"`
}

// claim keeps other runs with the same cache from mounting on the same
// directory until release is called, or this process ends.
func (j *job) claim() (release func(), err error) {
	f, err := openLog(j.cacheDir, j.dir)
	if err != nil {
		return nil, fmt.Errorf("log of the server: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("mount on %s: another peel mount is about to", j.dir)
		}
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// background starts a server and returns when its mount answers. When ctx ends
// the server cleans up and goes, and when this process dies it does so too.
func (o *mountOptions) background(ctx context.Context, j job) (mounted, error) {
	leash, theirs, err := socketpair()
	if err != nil {
		return mounted{}, err
	}
	defer leash.Close()
	cmd, err := o.start(j, theirs)
	if err := errors.Join(err, theirs.Close()); err != nil {
		return mounted{}, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = leash.CloseWrite()
		_ = leash.SetReadDeadline(time.Now().Add(undoTimeout))
	})
	defer stop()
	var m mounted
	if err = o.sendSecrets(leash); err == nil {
		m, err = o.follow(ctx, leash)
	}
	if err == nil {
		return m, cmd.Process.Release()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.Join(err, cmd.Process.Kill())
	}
	werr := cmd.Wait()
	if ctx.Err() != nil {
		return m, ctx.Err() // whatever it ended with, it was told to
	}
	if told := new(failure); !errors.As(err, &told) {
		err = withRemedy(fmt.Errorf("the server ended before the mount answered: %w", errors.Join(err, werr)),
			"its log may say why: %s", logPath(j.cacheDir, j.dir))
	}
	return m, err
}

// follow relays what the server says.
func (o *mountOptions) follow(ctx context.Context, leash *net.UnixConn) (mounted, error) {
	var drawn *bars
	defer func() {
		if drawn != nil {
			drawn.close()
		}
	}()
	for in := json.NewDecoder(bufio.NewReader(leash)); ; {
		var msg message
		if err := in.Decode(&msg); err != nil {
			return mounted{}, err
		}
		switch {
		case msg.Error != nil:
			return mounted{}, msg.Error
		case msg.Ready != nil:
			_, err := leash.Write([]byte{'\n'})
			return *msg.Ready, err
		case isTerminal(o.err):
			if drawn == nil {
				drawn = newBars(ctx, o.err)
			}
			drawn.update(msg.Progress)
		}
	}
}

// start runs this program anew as a server, in a session of its own so that no
// terminal's signals reach it.
func (o *mountOptions) start(j job, leash *os.File) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := openLog(j.cacheDir, j.dir)
	if err != nil {
		return nil, fmt.Errorf("log of the server: %w", err)
	}
	defer log.Close()
	args, err := o.serverArgs(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...) //nolint:noctx // outlives this process
	cmd.Dir = "/"                     // so as to keep no other file system busy
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{leash} // becomes leashFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// socketpair returns a connection and the file of its other end.
func socketpair() (*net.UnixConn, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "leash")
	ours, err := unixConn(os.NewFile(uintptr(pair[0]), "leash"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// unixConn makes a connection of f, which it closes.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d is no unix socket", leashFD), c.Close())
	}
	return u, nil
}

// leash is the server's end.
type leash struct {
	*mountOptions
	conn    *net.UnixConn
	path    string        // of the log
	acked   chan struct{} // closed when the other end has seen that the mount answers
	hungUp  chan struct{} // closed when the other end went away before
	sending sync.Mutex    // held while a message is written
}

// serveLeashed is what a server started by background does. It checks anew
// what that has checked: much may have happened since.
func (o *mountOptions) serveLeashed(ctx context.Context, ref, dir string) error {
	conn, err := unixConn(os.NewFile(leashFD, "leash"))
	if err != nil {
		return usagef("--leashed is not for people: %w", err)
	}
	if err := o.receiveSecrets(conn); err != nil {
		return errors.Join(errHungUp, err, conn.Close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := newLeash(o, conn)
	var wg sync.WaitGroup
	wg.Go(func() { l.listen(cancel) }) // ends at the latest when conn is closed below
	j, err := o.prepare(ref, dir)
	if err == nil {
		l.path = logPath(j.cacheDir, j.dir)
		err = o.serve(ctx, j, l)
	}
	if err != nil {
		_ = l.send(message{Error: explain(ctx, err)}) // who asked may have gone
	}
	_ = conn.Close()
	wg.Wait()
	return err
}

func newLeash(o *mountOptions, conn *net.UnixConn) *leash {
	return &leash{mountOptions: o, conn: conn, acked: make(chan struct{}), hungUp: make(chan struct{})}
}

// listen waits for the other end to say that the mount may stay, and cancels
// the server's work if it goes away instead.
func (l *leash) listen(cancel context.CancelCauseFunc) {
	if n, _ := l.conn.Read(make([]byte, 1)); n == 1 {
		close(l.acked)
		return
	}
	cancel(errHungUp)
	close(l.hungUp)
}

func (l *leash) send(m message) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	return json.NewEncoder(l.conn).Encode(m)
}

func (l *leash) logFile() string { return l.path }

func (l *leash) log() (*logrus.Entry, error) {
	return l.logger(&boundedLog{f: os.Stderr}, logrus.InfoLevel)
}

func (l *leash) watch(_ context.Context, p *fs.Progress) (stop func()) {
	return watch(p, func(layers []fs.LayerProgress) { _ = l.send(message{Progress: layers}) })
}

// ready waits until the other end knows: if it has gone by then, nobody would
// expect the mount to stay.
func (l *leash) ready(m mounted) error {
	if err := l.send(message{Ready: &m}); err != nil {
		return errors.Join(errHungUp, err)
	}
	select {
	case <-l.acked:
		return l.conn.Close()
	case <-l.hungUp:
		return errHungUp
	}
}

// serverArgs is the command line of a server for j.
func (o *mountOptions) serverArgs(j job) ([]string, error) {
	args := []string{"mount", "--leashed", "--cache=" + j.cacheDir, "--pull=" + o.pull.String(), "--require=" + o.require.String()}
	for _, f := range []struct{ name, value string }{
		{"platform", o.platform}, {"index", o.index}, {"log-level", o.logLevel},
	} {
		if f.value != "" {
			args = append(args, "--"+f.name+"="+f.value)
		}
	}
	asking, err := o.clientFlags.args()
	if err != nil {
		return nil, err
	}
	args = append(append(args, asking...), o.tuning.args()...)
	if o.allowOther {
		args = append(args, "--allow-other")
	}
	if o.early {
		args = append(args, "--early")
	}
	return append(args, "--", j.ref.String(), j.dir), nil
}
