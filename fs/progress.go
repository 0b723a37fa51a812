package fs

import (
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress shows how far an Open has come. The zero value is ready; whoever
// wants to draw it polls from another goroutine.
type Progress struct {
	mu     sync.Mutex // guards stage and layers
	stage  string
	layers []*layerProgress
}

// LayerProgress is the state of one layer.
type LayerProgress struct {
	Digest digest.Digest `json:"digest"`
	State  string        `json:"state"` // "waiting", "indexing", "streaming" or "ready"
	Done   int64         `json:"done"`  // compressed bytes streamed so far
	Total  int64         `json:"total"` // compressed bytes of the layer
}

type layerProgress struct {
	desc  ocispec.Descriptor
	state atomic.Pointer[string]
	done  atomic.Int64
}

func (l *layerProgress) set(state string) { l.state.Store(&state) }

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
		out[i] = LayerProgress{Digest: l.desc.Digest, State: *l.state.Load(), Done: l.done.Load(), Total: l.desc.Size}
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
		l.set("waiting")
		p.layers = append(p.layers, l)
	}
	return p.layers
}
