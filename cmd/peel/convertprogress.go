package main

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/fs"
)

// convertProgress tells how far the layers of a conversion have been read.
type convertProgress struct {
	mu    sync.Mutex // guards blobs
	blobs []convertBlob
}

type convertBlob struct {
	desc ocispec.Descriptor
	done *atomic.Int64
}

func newConvertProgress() *convertProgress { return &convertProgress{} }

// start adds a blob and returns the count of its bytes that were read.
func (p *convertProgress) start(d ocispec.Descriptor) *atomic.Int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := new(atomic.Int64)
	p.blobs = append(p.blobs, convertBlob{d, done})
	return done
}

// state is in the words that bars know.
func (p *convertProgress) state() []fs.LayerProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]fs.LayerProgress, len(p.blobs))
	for i, b := range p.blobs {
		out[i] = fs.LayerProgress{Digest: b.desc.Digest, State: "streaming", Done: b.done.Load(), Total: b.desc.Size}
	}
	return out
}

// showConversion draws bars for people who wait, until done is called.
func (a *app) showConversion(ctx context.Context, p *convertProgress) (done func()) {
	if !isTerminal(a.err) {
		return func() {}
	}
	b := newBars(ctx, a.err)
	stop := poll(p.state, b.update)
	return func() {
		stop()
		b.close()
	}
}

const (
	aheadBlock  = 256 << 10 // bytes
	aheadBlocks = 16
)

// readAhead reads while its reader is busy, so that a download and the work on
// it happen at the same time.
type readAhead struct {
	body   io.ReadCloser
	blocks chan []byte
	free   chan []byte
	quit   chan struct{}
	wg     sync.WaitGroup
	err    error // why there are no more blocks; set before blocks is closed

	whole, rest []byte // the block being read
}

// newReadAhead takes body over. It starts a goroutine that ends with the body
// or with Close.
func newReadAhead(body io.ReadCloser) *readAhead {
	r := &readAhead{
		body: body, quit: make(chan struct{}),
		blocks: make(chan []byte, aheadBlocks), free: make(chan []byte, aheadBlocks+1),
	}
	for range aheadBlocks {
		r.free <- make([]byte, aheadBlock)
	}
	r.wg.Go(r.run)
	return r
}

func (r *readAhead) run() {
	defer close(r.blocks)
	for {
		var block []byte
		select {
		case block = <-r.free:
		case <-r.quit:
			return
		}
		n, err := io.ReadFull(r.body, block[:aheadBlock])
		if n > 0 {
			r.blocks <- block[:n] // there are no more blocks than it has room for
		}
		if err != nil {
			r.err = err
			return
		}
	}
}

func (r *readAhead) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.whole != nil {
			r.free <- r.whole
			r.whole = nil
		}
		block, ok := <-r.blocks
		switch {
		case ok:
			r.whole, r.rest = block, block
		case r.err == io.EOF || r.err == io.ErrUnexpectedEOF: //nolint:errorlint // ReadFull returns both bare at the end
			return 0, io.EOF
		default:
			return 0, r.err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close ends the goroutine, then closes the body. It waits for a read that is
// under way: end the body's context before.
func (r *readAhead) Close() error {
	close(r.quit)
	r.wg.Wait()
	return r.body.Close()
}
