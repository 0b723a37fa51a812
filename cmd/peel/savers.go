package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/dockersave"
	"github.com/peelfs/peel/internal/ocilayout"
)

// saver is what images are written with: blobs first.
type saver interface {
	// Has reports whether the blob is there already.
	Has(ctx context.Context, d ocispec.Descriptor) (bool, error)
	// Blob writes a blob that r yields, and fails if it is not d's.
	Blob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error
	// Image makes an image of what was written.
	Image(ctx context.Context, i savedImage) error
	// Close ends what was written.
	Close() error
}

// savedImage is an image, or an index of several, whose blobs were written.
type savedImage struct {
	desc    ocispec.Descriptor
	raw     []byte
	names   []savedName
	config  []byte               // not of an index
	layers  []ocispec.Descriptor // not of an index
	diffIDs []digest.Digest      // parallel to layers
	log     *logrus.Entry
}

// layoutSaver writes into an image layout.
type layoutSaver struct{ *ocilayout.Layout }

func (l layoutSaver) Has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	return l.HasBlob(ctx, d)
}

func (l layoutSaver) Blob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	w, err := l.Create(ctx)
	if err != nil {
		return err
	}
	if _, err = io.Copy(w, r); err == nil {
		err = w.Commit(ctx, d.Digest)
	}
	return errors.Join(err, w.Close())
}

func (l layoutSaver) Image(ctx context.Context, i savedImage) error {
	for _, name := range i.names {
		if err := l.name(ctx, i, name); err != nil {
			return err
		}
	}
	if len(i.names) > 0 {
		return nil
	}
	d, err := l.PutManifest(ctx, i.raw, i.desc.MediaType, "")
	if err != nil {
		return err
	}
	return l.List(d)
}

// name names an image. Only a name that the user gives takes another's place.
func (l layoutSaver) name(ctx context.Context, i savedImage, name savedName) error {
	if name.given {
		_, err := l.PutManifest(ctx, i.raw, i.desc.MediaType, name.ref)
		return err
	}
	n := ocilayout.Name{Tag: name.ref, Image: name.image}
	switch {
	case name.image != "":
		n.Whole = reference.FamiliarString(name.tag)
	case strings.ContainsAny(name.ref, "/:"):
		n.Whole = name.ref
	}
	called, err := l.PutImage(ctx, i.raw, i.desc.MediaType, n)
	if errors.Is(err, ocilayout.ErrTaken) {
		return withRemedy(err, "name this one: -o oci:DIR:TAG, which takes the place of what has the tag")
	}
	if err == nil && called != name.ref {
		i.log.Warnf("%q is another image there; this one is %q", name.ref, called)
	}
	return err
}

func (layoutSaver) Close() error { return nil }

// ociArchiveSaver writes an image layout in a tar.
type ociArchiveSaver struct{ *dockersave.OCIArchive }

func (a ociArchiveSaver) Has(_ context.Context, d ocispec.Descriptor) (bool, error) {
	return a.OCIArchive.Has(d.Digest), nil
}

func (a ociArchiveSaver) Image(ctx context.Context, i savedImage) error {
	for _, name := range i.names {
		if err := a.Manifest(ctx, i.desc, i.raw, name.ref); err != nil {
			return err
		}
	}
	if len(i.names) > 0 {
		return nil
	}
	return a.Manifest(ctx, i.desc, i.raw, "")
}

// archiveSaver writes the archive of docker save.
type archiveSaver struct{ *dockersave.Archive }

func (a archiveSaver) Has(_ context.Context, d ocispec.Descriptor) (bool, error) {
	return a.Archive.Has(d.Digest), nil
}

func (a archiveSaver) Blob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	return a.Layer(ctx, d, r)
}

func (a archiveSaver) Image(_ context.Context, i savedImage) error {
	var names []reference.NamedTagged
	for _, name := range i.names {
		if name.tag != nil {
			names = append(names, name.tag)
		}
	}
	return a.Archive.Image(dockersave.Image{Config: i.config, Layers: i.layers, DiffIDs: i.diffIDs, Names: names})
}

// dirSaver writes a folder with one image.
type dirSaver struct{ *dockersave.Dir }

func (dirSaver) Has(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (d dirSaver) Image(_ context.Context, i savedImage) error { return d.Manifest(i.raw) }

func (dirSaver) Close() error { return nil }
