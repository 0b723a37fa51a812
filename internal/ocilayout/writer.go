package ocilayout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// errDone answers the use of a Writer after Commit or Close.
var errDone = errors.New("blob is written")

// Writer is a blob on its way into a layout.
type Writer struct {
	layout *Layout
	file   *os.File // nil when done
	sum    hash.Hash
	size   int64
}

// Create begins a blob. The Writer must be closed.
func (l *Layout) Create(ctx context.Context) (*Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, l.fail(err)
	}
	f, err := l.temporary()
	if err != nil {
		return nil, l.fail(err)
	}
	return &Writer{layout: l, file: f, sum: digest.SHA256.Hash()}, nil
}

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	if w.file == nil {
		return 0, w.layout.fail(errDone)
	}
	n, err := w.file.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, w.layout.fail(err)
	}
	return n, nil
}

// Commit puts the blob in its place if it has the digest d. A blob that is
// there already is left alone.
func (w *Writer) Commit(ctx context.Context, d digest.Digest) error {
	if w.file == nil {
		return w.layout.fail(errDone)
	}
	path, err := w.layout.path(d)
	if err == nil {
		err = ctx.Err()
	}
	if got := digest.NewDigest(digest.SHA256, w.sum); err == nil && got != d {
		err = fmt.Errorf("%w: blob has digest %s, not %s", ErrVerify, got, d)
	}
	if err != nil {
		return w.layout.fail(err)
	}
	there, err := w.layout.HasBlob(ctx, ocispec.Descriptor{Digest: d, Size: w.size})
	if err != nil {
		return err
	}
	if there {
		return w.Close()
	}
	f := w.file
	w.file = nil
	if err := publish(f, nil, path); err != nil {
		return w.layout.fail(err)
	}
	return nil
}

// Close drops the blob unless it was committed. It may be called more than
// once.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return w.layout.fail(err)
	}
	return nil
}

// temporary is a new file beside the blobs' folders, to be renamed. Unlike
// os.CreateTemp's its mode is what the umask leaves of 0666.
func (l *Layout) temporary() (*os.File, error) {
	name := filepath.Join(l.dir, ocispec.ImageBlobsDir, ".new-"+rand.Text())
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// publish gives a file that was written, with the error err or none, its name.
// When it returns, a crash no longer loses the content.
func publish(f *os.File, err error, path string) error {
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
