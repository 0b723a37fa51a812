package main

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/ocilayout"
	"github.com/peelfs/peel/remote"
)

// convertSink is where an image is written to: blobs first, then what refers
// to them. Its methods may be called concurrently.
type convertSink interface {
	HasBlob(ctx context.Context, d ocispec.Descriptor) (bool, error)
	Create(ctx context.Context) (blobWriter, error)
	// PutManifest writes a document, under its digest only if tag is empty.
	PutManifest(ctx context.Context, raw []byte, mediaType, tag string) (ocispec.Descriptor, error)
}

// blobWriter takes a blob of which nothing is kept before Commit.
type blobWriter interface {
	io.WriteCloser
	Commit(ctx context.Context, d digest.Digest) error
}

// blobMounter is a sink that can take blobs over without their bytes.
type blobMounter interface {
	Mount(ctx context.Context, d ocispec.Descriptor) (bool, error)
}

// creator is a sink whose writers have a type of their own.
type creator[W blobWriter] interface {
	HasBlob(ctx context.Context, d ocispec.Descriptor) (bool, error)
	Create(ctx context.Context) (W, error)
	PutManifest(ctx context.Context, raw []byte, mediaType, tag string) (ocispec.Descriptor, error)
}

// sinkOf makes a convertSink of a creator.
type sinkOf[W blobWriter] struct{ creator[W] }

func (s sinkOf[W]) Create(ctx context.Context) (blobWriter, error) {
	w, err := s.creator.Create(ctx)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// mountingSink is a repository of the registry that the original is in.
type mountingSink struct {
	convertSink
	client   *remote.Client
	to, from reference.Named
}

func (s mountingSink) Mount(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	return s.client.MountBlob(ctx, s.to, s.from, d.Digest)
}

// open makes the sink of a destination, for an image from the repository from.
func (d destination) open(client *remote.Client, from reference.Named) (convertSink, error) {
	if d.ref == nil {
		l, err := ocilayout.Open(d.dir)
		if err != nil {
			return nil, err
		}
		return sinkOf[*ocilayout.Writer]{l}, nil
	}
	s := sinkOf[*remote.Upload]{client.Repository(d.ref)}
	if reference.Domain(from) != reference.Domain(d.ref) || reference.Path(from) == reference.Path(d.ref) {
		return s, nil
	}
	return mountingSink{s, client, reference.TrimNamed(d.ref), from}, nil
}

// putBlob writes a blob of which all is here.
func (c *conversion) putBlob(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	if there, err := c.sink.HasBlob(ctx, d); err != nil || there {
		return err
	}
	return c.write(ctx, func(w io.Writer) (digest.Digest, error) {
		_, err := io.Copy(w, bytes.NewReader(data))
		return d.Digest, err
	})
}

// write gives produce a blob to write, and keeps it under the digest that
// produce returns.
func (c *conversion) write(ctx context.Context, produce func(io.Writer) (digest.Digest, error)) (err error) {
	w, err := c.sink.Create(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	d, err := produce(w)
	if err != nil {
		return err
	}
	return w.Commit(ctx, d)
}
