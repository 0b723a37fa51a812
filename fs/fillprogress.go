package fs

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// What a fill is doing with a layer.
const (
	FillWaiting  = "waiting"
	FillFetching = "fetching"
	FillProving  = "proving"
	FillDone     = "done"
	FillFailed   = "failed"
)

// FillLayer is how far a fill has got with a layer.
type FillLayer struct {
	Digest digest.Digest `json:"digest"`
	State  string        `json:"state"`
	// Done of Total compressed bytes are here: of a layer that is not proved,
	// those from its first byte on that have passed by for that purpose.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Fetched bytes came from the registry so that it be proved.
	Fetched int64  `json:"fetched"`
	Proved  bool   `json:"proved"`
	Error   string `json:"error,omitempty"` // why it failed
}

// FillProgress tells how a fill gets on. Its methods may be called concurrently;
// its zero value is that of a fill which has not begun.
type FillProgress struct {
	mu     sync.Mutex   // guards layers
	layers []*fillLayer // parallel to those of the manifest; equal ones share
}

// Layers returns the state of all layers, bottom first; nil before the fill
// has begun.
func (p *FillProgress) Layers() []FillLayer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []FillLayer
	for _, l := range p.layers {
		s := l.state.Load()
		out = append(out, FillLayer{
			Digest: l.digest, State: s.word, Error: s.err, Total: l.total,
			Done: min(l.done.Load(), l.total), Fetched: l.fetched.Load(), Proved: l.proved.Load(),
		})
	}
	return out
}

type fillLayer struct {
	digest  digest.Digest
	total   int64
	done    atomic.Int64
	fetched atomic.Int64
	proved  atomic.Bool
	state   atomic.Pointer[fillState]
}

type fillState struct{ word, err string }

func (l *fillLayer) set(word string) { l.state.Store(&fillState{word: word}) }

func (p *FillProgress) start(m *Image) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers = nil
	byKey := map[digest.Digest]*fillLayer{}
	for i, d := range m.Manifest.Layers {
		l := byKey[m.keys[i]]
		if l == nil {
			l = &fillLayer{digest: d.Digest, total: d.Size}
			l.set(FillWaiting)
			byKey[m.keys[i]] = l
		}
		p.layers = append(p.layers, l)
	}
}

func (p *FillProgress) at(i int) *fillLayer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.layers[i]
}

// ended is told how the fill of layer i ended.
func (p *FillProgress) ended(i int, err error) {
	if err != nil {
		p.at(i).state.Store(&fillState{FillFailed, err.Error()})
		return
	}
	p.at(i).set(FillDone)
}

func layerError(d digest.Digest, err error) error { return fmt.Errorf("layer %s: %w", d, err) }
