package fs

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// transfers are those under way of a Puller.
type transfers struct{}

// Puller makes whole images local. Its methods may be called concurrently;
// equal layers of several images are transferred once.
type Puller struct {
	o Options
}

// NewPuller returns a puller that opens images as o says. Close it.
func NewPuller(o Options) *Puller { return &Puller{o: o} }

// Pulled is an image all bytes of which are in the cache.
type Pulled struct {
	Reference string        `json:"reference"`
	Digest    digest.Digest `json:"digest"` // of what the reference names: an index or a manifest
	New       bool          `json:"new"`    // the reference has moved, or something was fetched
	Bytes     int64         `json:"bytes"`  // compressed bytes of layers that were transferred for it
}

// Pull makes the image that ref names local. progress may be nil.
func (p *Puller) Pull(ctx context.Context, ref string, progress *Progress) (*Pulled, error) {
	o := p.o
	o.Pull, o.Progress = PullAlways, progress
	m, err := Open(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return &Pulled{Reference: m.Manifest.Reference.String(), Digest: m.Manifest.Top.Digest}, nil
}
