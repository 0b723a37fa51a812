package fs

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/layer"
)

// Progress shows how far an Open or a Pull has come. The zero value is ready;
// whoever wants to draw it polls from another goroutine.
type Progress struct {
	mu     sync.Mutex // guards stage and layers
	stage  string
	layers []*layerProgress
}

// LayerProgress is the state of one layer.
type LayerProgress struct {
	Digest digest.Digest `json:"digest"`
	State  string        `json:"state"` // "waiting", "indexing", "streaming" or "ready"; of a Pull, see Transfer
	Done   int64         `json:"done"`  // compressed bytes streamed so far
	Total  int64         `json:"total"` // compressed bytes of the layer
}

// What Transfer says of a layer.
const (
	TransferWaiting     = "waiting"
	TransferDownloading = "downloading"
	TransferVerifying   = "verifying"
	TransferComplete    = "complete"
	TransferExists      = "already exists"
)

// Transfer is the state of a layer that a Pull makes complete.
func (l LayerProgress) Transfer() string {
	switch l.State {
	case TransferComplete, TransferExists:
		return l.State
	case "streaming", TransferDownloading:
		if l.Done >= l.Total && l.Total > 0 {
			return TransferVerifying
		}
		return TransferDownloading
	}
	return TransferWaiting
}

type layerProgress struct {
	desc  ocispec.Descriptor
	meter atomic.Pointer[meter]
}

// meter counts a transfer, which may be for several images.
type meter struct {
	state   atomic.Pointer[string]
	done    atomic.Int64 // compressed bytes that are here
	fetched atomic.Int64 // compressed bytes that were read from the source
}

func newMeter(state string) *meter {
	m := &meter{}
	m.state.Store(&state)
	return m
}

// set notes the state. What a Pull has completed stays complete when the image
// is opened.
func (m *meter) set(state string) {
	if old := *m.state.Load(); state != "ready" || old != TransferComplete {
		m.state.Store(&state)
	}
}

func (l *layerProgress) set(state string) { l.meter.Load().set(state) }

// complete notes that all of the layer is here.
func (l *layerProgress) complete() {
	l.meter.Load().done.Store(l.desc.Size)
	l.set(TransferComplete)
}

// Stage says what is being done: "resolving", "indexing", "merging" or "ready".
func (p *Progress) Stage() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stage
}

// Layers returns the layers that had to be looked at, bottom first: none if
// the image came from the cache.
func (p *Progress) Layers() []LayerProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]LayerProgress, len(p.layers))
	for i, l := range p.layers {
		m := l.meter.Load()
		out[i] = LayerProgress{Digest: l.desc.Digest, State: *m.state.Load(), Done: m.done.Load(), Total: l.desc.Size}
	}
	return out
}

func (p *Progress) enter(stage string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage = stage
}

func (p *Progress) start(descs []ocispec.Descriptor) []*layerProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage = "indexing"
	for _, d := range descs {
		l := &layerProgress{desc: d}
		l.meter.Store(newMeter(TransferWaiting))
		p.layers = append(p.layers, l)
	}
	return p.layers
}

// forget takes back what start began.
func (p *Progress) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers = nil
}

// all returns the layers that Layers tells of.
func (p *Progress) all() []*layerProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.layers
}

// count returns src with the bytes that are read of it counted.
func (m *meter) count(src layer.Source) layer.Source { return &countedSource{src, m} }

type countedSource struct {
	layer.Source
	meter *meter
}

func (s *countedSource) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	body, err := s.Source.ReadRange(ctx, off, n)
	if err != nil {
		return nil, err
	}
	return &countedBody{body, s.meter}, nil
}

// Link is layer.Gauge's.
func (s *countedSource) Link() (roundTrip time.Duration, bandwidth int64) {
	if g, ok := s.Source.(layer.Gauge); ok {
		return g.Link()
	}
	return 0, 0
}

type countedBody struct {
	io.ReadCloser
	meter *meter
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.meter.fetched.Add(int64(n))
	return n, err
}
