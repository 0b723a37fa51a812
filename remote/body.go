package remote

import (
	"errors"
	"io"
	"time"
)

// body is an answer's body under the watchdog's eye. It makes way for bodies
// that are more urgent.
type body struct {
	ctx    func() error // why the request's context is done, if it is
	done   <-chan struct{}
	host   string
	rc     io.ReadCloser
	dog    *watchdog
	slot   *slot
	stream stream
}

// Read returns io.EOF at the end of the body, or a fault.
func (b *body) Read(p []byte) (int, error) {
	if b.slot.hurried() {
		b.stream.leave(time.Now())
		b.slot.pause(b.done)
	}
	b.dog.arm()
	b.stream.begin(b.dog.since)
	n, err := b.rc.Read(p)
	took := b.dog.disarm(n)
	b.stream.end(b.dog.since.Add(took), took, n)
	b.slot.took(n)
	if err == nil {
		return n, nil
	}
	b.stream.leave(b.dog.since.Add(took))
	if errors.Is(err, io.EOF) {
		return n, err
	}
	if cause := b.ctx(); cause != nil {
		err = cause
	}
	return n, transportFault(b.host, err)
}

func (b *body) Close() error {
	err := b.rc.Close()
	b.stream.leave(time.Now())
	b.dog.stop()
	b.slot.release()
	return err
}
