package fs

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// idleWorkers is how many goroutines wait for requests when there are
	// none. Each holds a thread in read(2).
	idleWorkers = 4
	// maxWorkers bounds the requests in hand; more wait in the kernel.
	maxWorkers = 256
	// headerRoom is what a request or reply needs beside its data, bytes.
	headerRoom = 4096
)

// conn reads requests from a FUSE descriptor, has them answered and writes the
// answers. It neither mounts nor closes the descriptor, which may have been
// opened by another process and may be served by another one after this.
type conn struct {
	fd      int
	proto   *fuse.ProtocolServer
	workers atomic.Int32
	idle    atomic.Int32
	wg      sync.WaitGroup // one count a worker

	mu  sync.Mutex // guards err
	err error
}

func newConn(fd int, proto *fuse.ProtocolServer) *conn {
	return &conn{fd: fd, proto: proto}
}

// start begins to serve; the workers end when the file system is unmounted.
func (c *conn) start() {
	for range idleWorkers {
		c.spawn()
	}
}

// wait returns when every worker has ended, with what ended them if it was
// not an unmount.
func (c *conn) wait() error {
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *conn) spawn() {
	if c.workers.Add(1) > maxWorkers {
		c.workers.Add(-1)
		return
	}
	c.idle.Add(1)
	c.wg.Go(c.work)
}

// work answers requests until there are enough idle workers without it. When
// it takes the last idle worker's turn it starts another, so that a request
// that waits for the network never keeps others waiting.
func (c *conn) work() {
	defer c.workers.Add(-1)
	b, err := newBuffers()
	if err != nil {
		c.idle.Add(-1)
		c.fail(err)
		return
	}
	defer b.free()
	for {
		n, err := unix.Read(c.fd, b.in)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			continue // ENOENT: the request was interrupted before we had it
		case errors.Is(err, unix.ENODEV):
			c.idle.Add(-1)
			return // unmounted
		default:
			c.idle.Add(-1)
			c.fail(fmt.Errorf("read %s: %w", fuseDevice, err))
			return
		}
		if c.idle.Add(-1) == 0 {
			c.spawn()
		}
		c.answer(b, n)
		if c.idle.Add(1) > idleWorkers {
			c.idle.Add(-1)
			return
		}
	}
}

func (c *conn) answer(b *buffers, n int) {
	b.inVec[0] = b.in[:n]
	m, status := c.proto.HandleRequest(b.inVec[:], b.outVec[:])
	if status != fuse.OK || m == 0 {
		return // nothing to say: FORGET and its like, or not a request at all
	}
	for {
		_, err := unix.Write(c.fd, b.out[:m])
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
			return // ENOENT: the asker was interrupted and has gone
		case errors.Is(err, unix.EINTR):
		default:
			c.fail(fmt.Errorf("write %s: %w", fuseDevice, err))
			return
		}
	}
}

func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = errors.Join(c.err, err)
}

// buffers are a worker's: mapped, so that what is never touched never costs
// memory and what is goes back to the system with the worker.
type buffers struct {
	in, out       []byte
	inVec, outVec [1][]byte
}

func newBuffers() (*buffers, error) {
	m, err := unix.Mmap(-1, 0, 2*(maxRequest+headerRoom), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("buffers of %d bytes: %w", 2*(maxRequest+headerRoom), err)
	}
	half := len(m) / 2
	b := &buffers{in: m[:half], out: m[half:]}
	b.outVec[0] = b.out
	return b, nil
}

func (b *buffers) free() { _ = unix.Munmap(b.in[:cap(b.in)]) }
