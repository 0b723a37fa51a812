package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest/local"
	"github.com/peelfs/peel/remote"
)

// here makes a source of a place on this machine.
type here struct {
	*local.Source
	client  *remote.Client // for layers that may lie elsewhere
	foreign bool           // there are hosts that these may be read from
}

// Layer is a blob that can be read where it lies, unless its descriptor tells
// URLs: then it may not be here.
func (h here) Layer(ref reference.Named, d ocispec.Descriptor) layer.Source {
	b := h.Open(ref, d)
	if len(d.URLs) == 0 {
		return b
	}
	return &foreignLayer{blob: b, desc: d, elsewhere: h.client.Open(ref, d), allowed: h.foreign}
}

// Stats is source's.
func (h here) Stats() remote.Stats { return h.client.Stats() }

// Registries is source's.
func (h here) Registries() *remote.Client { return h.client }

func (h here) Close() error {
	h.client.Close()
	return h.Source.Close()
}

// foreignLayer is a layer that whoever saved an image may have left out.
type foreignLayer struct {
	blob      *local.Blob
	desc      ocispec.Descriptor
	elsewhere *remote.Blob
	allowed   bool
}

func (l *foreignLayer) Size() int64 { return l.desc.Size }

func (l *foreignLayer) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	r, err := l.blob.ReadRange(ctx, off, n)
	if !errors.Is(err, local.ErrNotFound) {
		return r, err
	}
	if !l.allowed {
		host := "HOST"
		if u, bad := url.Parse(l.desc.URLs[0]); bad == nil && u.Host != "" {
			host = u.Host
		}
		return nil, withRemedy(err, "if you trust that host, allow it with --foreign-layers %s", host)
	}
	r, elsewhere := l.elsewhere.ReadRange(ctx, off, n)
	if elsewhere != nil {
		return nil, fmt.Errorf("%w; %w", err, elsewhere)
	}
	return r, nil
}
