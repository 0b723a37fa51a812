package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"

	"github.com/peelfs/peel/layer"
)

// layer proves layer i, unless that is settled.
func (v *verifier) layer(ctx context.Context, i int) (verifiedLayer, error) {
	x := v.image.Layers()[i].Index()
	l := verifiedLayer{
		Digest: x.Blob().String(), Format: x.Info.Format.String(),
		Index: x.Claim().String(), Origin: x.Origin(), Result: resultProved,
	}
	if result, note := v.settled(x); result != "" {
		l.Result, l.Note = result, note
		return l, nil
	}
	err := v.compare(ctx, i, x)
	switch {
	case errors.Is(err, layer.ErrVerify), errors.Is(err, layer.ErrMalformed):
		l.Result, l.Difference = resultDiffers, err.Error()
		return l, nil
	case err != nil:
		return l, err
	}
	return l, v.proved(i, x.AsProved(v.image.Config.RootFS.DiffIDs[i]))
}

// compare reads layer i whole and compares it with what x claims of it.
func (v *verifier) compare(ctx context.Context, i int, x *layer.Index) (err error) {
	d := v.image.Manifest.Layers[i]
	var s spool
	if s.blob, err = os.CreateTemp(v.dir, "verify-*"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.tar, err = os.CreateTemp(v.dir, "verify-*"); err != nil {
		return err
	}
	src := v.from.Layer(v.image.Manifest.Reference.Named(), d)
	streamed, err := layer.Stream(ctx, keeping{src, s.blob}, d, v.image.Config.RootFS.DiffIDs[i], layer.StreamOptions{
		Stage: tarStage{s.tar}, Progress: v.progress.start(d), Log: v.log,
	})
	if err != nil {
		return err
	}
	return layer.Prove(ctx, x, fileSource{s.blob, d.Size}, streamed, s.tar)
}

// spool is a layer in temporary files: its blob, and its tar.
type spool struct{ blob, tar *os.File }

// Close removes the files. Whoever sweeps the folder may have done so already.
func (s *spool) Close() error {
	var errs []error
	for _, f := range []*os.File{s.blob, s.tar} {
		if f == nil {
			continue
		}
		errs = append(errs, f.Close())
		if err := os.Remove(f.Name()); !errors.Is(err, iofs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(body, io.NewOffsetWriter(k.to, off)), body}, nil
}

// fileSource is a blob in a file.
type fileSource struct {
	f    *os.File
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

// Close leaves the file open, which belongs to the spool.
func (tarStage) Close() error { return nil }
