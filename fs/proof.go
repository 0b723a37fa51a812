package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/layer"
)

// Proof is a comparison of an index, which is a claim, with the whole layer.
type Proof struct {
	Index    *layer.Index
	Layer    ocispec.Descriptor
	DiffID   digest.Digest // of the layer's tar
	Dir      string        // for temporary files: as many bytes as blob and tar have
	Progress *atomic.Int64 // set to the compressed bytes read of the blob; may be nil
	Log      *logrus.Entry
}

// Run reads all of blob, once, and compares its digest, that of its tar, and
// every name, attribute and byte with what the index claims. The error is
// layer.ErrVerify or layer.ErrMalformed with the first difference, or why it
// cannot be known.
func (p *Proof) Run(ctx context.Context, blob layer.Source) (err error) {
	copied, err := os.CreateTemp(p.Dir, "proof-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, discard(copied)) }()
	return p.compare(ctx, keeping{blob, copied}, fileSource{copied, p.Layer.Size})
}

// compare is Run with a blob that can be read a second time as again.
func (p *Proof) compare(ctx context.Context, blob, again layer.Source) (err error) {
	tar, err := os.CreateTemp(p.Dir, "proof-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, discard(tar)) }()
	streamed, err := layer.Stream(ctx, blob, p.Layer, p.DiffID, layer.StreamOptions{
		Stage: tarStage{tar}, Progress: p.Progress, Log: p.Log,
	})
	if err != nil {
		return err
	}
	return layer.Prove(ctx, p.Index, again, streamed, tar)
}

// discard removes a temporary file. Whoever sweeps its folder may have done so.
func discard(f *os.File) error {
	err := f.Close()
	if rerr := os.Remove(f.Name()); !errors.Is(rerr, iofs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// keeping is a blob of which a copy is kept as it is read.
type keeping struct {
	layer.Source
	to *os.File
}

func (k keeping) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	body, err := k.Source.ReadRange(ctx, off, n)
	if err != nil {
		return nil, err
	}
	return reading{io.TeeReader(body, io.NewOffsetWriter(k.to, off)), body}, nil
}

// reading is a reader and what ends it.
type reading struct {
	io.Reader
	io.Closer
}

// fileSource is a blob in a file.
type fileSource struct {
	f    io.ReaderAt
	size int64
}

func (s fileSource) Size() int64 { return s.size }

func (s fileSource) ReadRange(_ context.Context, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n < 0 || off > s.size-n {
		return nil, fmt.Errorf("bytes %d to %d of a blob of %d: %w", off, off+n, s.size, iofs.ErrInvalid)
	}
	return io.NopCloser(io.NewSectionReader(s.f, off, n)), nil
}

// tarStage keeps the tar of a layer until it has been compared.
type tarStage struct{ *os.File }

// Commit is layer.Stage's.
func (tarStage) Commit(int64, int) error { return nil }

// Close leaves the file open, which belongs to the proof.
func (tarStage) Close() error { return nil }
