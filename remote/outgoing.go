package remote

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// payload is what a request carries.
type payload struct {
	size int64
	// open is called each time the payload is sent.
	open func() (io.ReadCloser, error)
}

// errSent answers reads of a payload whose request is over.
var errSent = errors.New("request is over")

// outgoing is a payload on its way. The watchdog looks at the connection only,
// not at the source. The transport may go on reading after it has answered;
// end makes sure that the source is left alone from then on.
type outgoing struct {
	dog   *watchdog
	tally *tally
	size  int64

	mu   sync.Mutex // guards what follows and the watchdog; held while rc is read
	rc   io.ReadCloser
	got  int64
	over bool
	err  error // why the source cannot be sent
}

func (b *payload) send(dog *watchdog, t *tally) (*outgoing, error) {
	rc, err := b.open()
	if err != nil {
		return nil, fmt.Errorf("content to send: %w", err)
	}
	return &outgoing{dog: dog, tally: t, size: b.size, rc: rc}, nil
}

func (o *outgoing) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		return 0, errSent
	}
	o.dog.rest()
	n, err := o.rc.Read(p)
	o.got += int64(n)
	o.tally.sent.Add(int64(n))
	atEnd := errors.Is(err, io.EOF)
	switch {
	case err != nil && !atEnd:
		o.err = fmt.Errorf("content to send: %w", err)
	case o.got > o.size, atEnd && o.got < o.size:
		o.err = &fault{class: ErrVerify, text: fmt.Sprintf("content to send is not of the %d bytes of its descriptor", o.size)}
	}
	if o.err != nil {
		return n, o.err
	}
	if o.got == o.size {
		o.dog.armFor(o.dog.pace.settling())
	} else {
		o.dog.arm()
	}
	return n, err
}

// Close is the transport's. The source is closed by end, which comes after.
func (o *outgoing) Close() error { return nil }

// end waits for the read under way, closes the source and returns why it could
// not be sent, if that is so.
func (o *outgoing) end() error {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.over = true
		o.rc.Close() //nolint:errcheck // it was only read
	}
	return o.err
}
