package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
)

// fromLayout is a source whose layers were saved to a layout.
type fromLayout struct {
	source
	layout *local.Source
}

// Layer is the one in the layout, but for those that are not distributed: they
// may not have been saved.
func (f fromLayout) Layer(ref reference.Named, d ocispec.Descriptor) layer.Source {
	if len(d.URLs) > 0 {
		return f.source.Layer(ref, d)
	}
	return f.layout.Open(ref, d)
}

func (f fromLayout) Close() error { return errors.Join(f.layout.Close(), f.source.Close()) }

// save saves the images to the OCI layout that --destination names, from where
// their layers are read then: each crosses the network once.
func (b *pullBatch) save(ctx context.Context) error {
	to, err := manifest.ParseReference(manifest.TransportOCI + ":" + b.destination)
	if err != nil {
		return fmt.Errorf("--destination: %w", err)
	}
	if to.Within() != "" {
		return usagef("--destination %s: a colon cannot be in the name of the folder", b.destination)
	}
	j := saveJob{to: saveDestination{transport: to.Transport(), path: to.Location()}, platform: manifest.DefaultPlatform()}
	for _, w := range b.images {
		j.refs = append(j.refs, w.ref)
		j.platform = w.platform
	}
	if len(j.refs) == 0 {
		return nil
	}
	place, err := j.to.open(b.out)
	if err != nil {
		return err
	}
	r := &saveRun{saveOptions: &saveOptions{app: b.app}, saveJob: j, place: place, progress: newConvertProgress(), log: b.log}
	done := func() {}
	if !b.quiet && !b.json {
		done = b.showConversion(ctx, r.progress)
	}
	saved, err := r.each(ctx)
	done()
	if err = place.finish(ctx, err); err != nil || b.registry == nil {
		return err
	}
	return b.readFrom(ctx, to.String()+"@"+saved[0].Digest.String())
}

// readFrom has layers of registries be read from an image's layout.
func (b *pullBatch) readFrom(ctx context.Context, layout string) error {
	ref, err := manifest.ParseReference(layout)
	if err != nil {
		return err
	}
	from, err := b.openPlace(ctx, ref, b.log)
	if err != nil {
		return err
	}
	b.registry = fromLayout{b.registry, from}
	return nil
}
