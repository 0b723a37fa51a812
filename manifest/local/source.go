package local

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/manifest"
)

// Options of Open and List.
type Options struct {
	Tmp string // folder for what must be unpacked; "" is os.TempDir
	Log *logrus.Entry
}

// Source is an image's place, opened.
type Source struct{}

// Open opens the place that ref names.
func Open(context.Context, manifest.Reference, Options) (*Source, error) {
	return nil, errdefs.ErrNotImplemented
}

// Manifest implements manifest.Fetcher.
func (s *Source) Manifest(context.Context, reference.Named) (ocispec.Descriptor, []byte, error) {
	return ocispec.Descriptor{}, nil, errdefs.ErrNotImplemented
}

// Blob implements manifest.Fetcher.
func (s *Source) Blob(context.Context, reference.Named, ocispec.Descriptor) ([]byte, error) {
	return nil, errdefs.ErrNotImplemented
}

// BlobSize implements manifest.Sizer.
func (s *Source) BlobSize(context.Context, reference.Named, digest.Digest) (int64, error) {
	return 0, errdefs.ErrNotImplemented
}

// Referrers lists the manifests whose subject is d.
func (s *Source) Referrers(context.Context, reference.Named, digest.Digest) ([]ocispec.Descriptor, error) {
	return nil, errdefs.ErrNotImplemented
}

// Close closes what Open opened.
func (s *Source) Close() error { return nil }

// Open is the blob that d describes.
func (s *Source) Open(_ reference.Named, d ocispec.Descriptor) *Blob { return &Blob{d} }

// Blob is a blob where it lies.
type Blob struct{ desc ocispec.Descriptor }

// Size is in bytes.
func (b *Blob) Size() int64 { return b.desc.Size }

// ReadRange returns the bytes [off, off+n).
func (b *Blob) ReadRange(context.Context, int64, int64) (io.ReadCloser, error) {
	return nil, errdefs.ErrNotImplemented
}

// ReadAt implements io.ReaderAt.
func (b *Blob) ReadAt([]byte, int64) (int, error) { return 0, errdefs.ErrNotImplemented }

// Entry is one image of a place.
type Entry struct {
	Names []string
	Desc  ocispec.Descriptor
}

// List is what images there are in the place that ref names.
func List(context.Context, manifest.Reference, Options) ([]Entry, error) {
	return nil, errdefs.ErrNotImplemented
}
