package manifest

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

const maxSizing = 6 // sizes asked for at once, as many connections as browsers open

// sizes adds the sizes of layers to a manifest that does not state them.
func (w *walk) sizes(ctx context.Context, doc *document) error {
	if doc.v1 == nil || len(doc.manifest.Layers) == 0 {
		return nil
	}
	sizer, ok := w.fetcher.(Sizer)
	if !ok {
		return fmt.Errorf("%w here: its manifest of Docker schema 1 does not tell the sizes of layers, and there is nobody to ask",
			ErrUnsupported)
	}
	sizes := map[digest.Digest]*int64{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxSizing)
	for _, l := range doc.manifest.Layers {
		if sizes[l.Digest] != nil {
			continue
		}
		size := new(int64)
		sizes[l.Digest] = size
		g.Go(func() (err error) {
			*size, err = sizer.BlobSize(gctx, w.ref.repository(), l.Digest)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range doc.manifest.Layers {
		l := &doc.manifest.Layers[i]
		l.Size = *sizes[l.Digest]
		if err := checkBlob(*l, maxLayer); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(doc.manifest.Layers), err)
		}
	}
	return nil
}
