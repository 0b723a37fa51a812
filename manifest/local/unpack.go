package local

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// compression is told by the first bytes, whatever the name says.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

// compressionOf looks at the beginning of r. What compresses, but not in a way
// that layers are in, is an ErrUnsupported.
func compressionOf(r io.Reader) (compression, error) {
	var magic [6]byte
	n, err := io.ReadFull(r, magic[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return plain, err
	}
	head := magic[:n]
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard, nil
	case n >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}): // a skippable frame
		return zstandard, nil
	case n == 6 && bytes.HasPrefix(head, []byte("BZh")) && bytes.HasSuffix(head, []byte("1A")):
		return plain, fmt.Errorf("compression with bzip2 is %w; unpack it with bunzip2 first", ErrUnsupported)
	case bytes.Equal(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return plain, fmt.Errorf("compression with xz is %w; unpack it with unxz first", ErrUnsupported)
	}
	return plain, nil
}

// decompress reads what r holds in compressed form.
func decompress(r io.Reader, how compression) (io.ReadCloser, error) {
	switch how {
	case gzipped:
		return gzip.NewReader(bufio.NewReaderSize(r, 1<<16))
	case zstandard:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	default:
		return io.NopCloser(r), nil
	}
}

// unpack decompresses all of h into a file that has no name any more.
func unpack(ctx context.Context, h *held, how compression, o Options) (*held, error) {
	if o.Log != nil {
		o.Log.WithField("file", h.name).Warn("this archive is compressed as a whole and is unpacked first; decompress it to have it read in place")
	}
	tmp, err := os.CreateTemp(o.Tmp, "peel-archive-*")
	if err != nil {
		return nil, fmt.Errorf("room to unpack it: %w", err)
	}
	// Gone with the process, whatever ends that. Where open files cannot be
	// removed, the folder for temporary files keeps it.
	removed := os.Remove(tmp.Name())
	if err := fill(ctx, tmp, h, how); err != nil {
		err = errors.Join(err, tmp.Close())
		if removed != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
		return nil, err
	}
	return hold(tmp, tmp.Name())
}

func fill(ctx context.Context, tmp *os.File, h *held, how compression) error {
	out, err := decompress(&reader{io.NewSectionReader(h, 0, h.was.size), ctx.Err}, how)
	if err != nil {
		return unpacking(err)
	}
	defer out.Close()
	// Few bytes may make many: hence checked on both sides.
	n, err := io.Copy(tmp, &reader{io.LimitReader(out, maxUnpacked+1), ctx.Err})
	if err != nil {
		return unpacking(err)
	}
	if n > maxUnpacked {
		return errTooLarge()
	}
	return nil
}

func errTooLarge() error {
	return fmt.Errorf("%w: unpacked it has more than %d bytes", ErrMalformed, int64(maxUnpacked))
}

// unpacking tells what a failure to decompress means.
func unpacking(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrChanged):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("no room to unpack it: %w; decompress it where there is room, and name the result", err)
	case errors.As(err, new(*fs.PathError)):
		return fmt.Errorf("unpacking it: %w", err)
	}
	return fmt.Errorf("%w: it cannot be unpacked: %w", ErrMalformed, err)
}
