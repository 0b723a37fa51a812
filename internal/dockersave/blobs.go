package dockersave

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/sentinel"
)

// ErrVerify: the content is not what its digest or size promises
// (ErrDataLoss).
var ErrVerify = sentinel.New("verification failed", errdefs.ErrDataLoss)

const (
	entryMode = 0o444
	copyBlock = 256 << 10 // bytes
)

// tarball writes entries, each name once.
type tarball struct {
	w       io.Writer
	tar     *tar.Writer
	written map[string]bool
}

func newTarball(w io.Writer) *tarball {
	return &tarball{w: w, tar: tar.NewWriter(w), written: map[string]bool{}}
}

// rewinder is a file, which can forget what was written to it.
type rewinder interface {
	io.Seeker
	Truncate(size int64) error
}

// blob writes an entry with the content of d, which r yields. If that fails,
// there is no such entry in a file; a pipe is of no use any more.
func (t *tarball) blob(ctx context.Context, name string, d ocispec.Descriptor, r io.Reader) error {
	if err := t.tar.Flush(); err != nil {
		return err
	}
	file, off := t.position()
	err := t.begin(name, d.Size)
	if err == nil {
		err = copyBlob(ctx, t.tar, d, r)
	}
	if err != nil && file != nil {
		err = errors.Join(err, t.rewind(file, off, name))
	}
	return err
}

// position is where the next entry begins; nil if there is no way back.
func (t *tarball) position() (rewinder, int64) {
	file, ok := t.w.(rewinder)
	if !ok {
		return nil, 0
	}
	off, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, 0
	}
	return file, off
}

// rewind drops the entry that begins at off.
func (t *tarball) rewind(file rewinder, off int64, name string) error {
	if err := file.Truncate(off); err != nil {
		return err
	}
	if _, err := file.Seek(off, io.SeekStart); err != nil {
		return err
	}
	t.tar = tar.NewWriter(t.w)
	delete(t.written, name)
	return nil
}

// document writes an entry of which all is here.
func (t *tarball) document(name string, raw []byte) error {
	if t.written[name] {
		return nil
	}
	if err := t.begin(name, int64(len(raw))); err != nil {
		return err
	}
	_, err := t.tar.Write(raw)
	return err
}

func (t *tarball) json(name string, doc any) error {
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return t.document(name, raw)
}

// begin starts an entry. All have the same time, as that of today would make
// two archives of one image differ.
func (t *tarball) begin(name string, size int64) error {
	t.written[name] = true
	return t.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: entryMode, ModTime: time.Unix(0, 0),
	})
}

// copyBlob copies the content of d, and fails unless it is that.
func copyBlob(ctx context.Context, w io.Writer, d ocispec.Descriptor, r io.Reader) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%.100q: %w", d.Digest, err)
	}
	sum := d.Digest.Algorithm().Hash()
	n, err := io.CopyBuffer(io.MultiWriter(w, sum), &limited{ctx, r, d.Size}, make([]byte, copyBlock))
	if err != nil {
		return err
	}
	if n != d.Size {
		return fmt.Errorf("%s: %w: %d bytes, want %d", d.Digest, ErrVerify, n, d.Size)
	}
	if got := digest.NewDigest(d.Digest.Algorithm(), sum); got != d.Digest {
		return fmt.Errorf("%s: %w: bytes have digest %s", d.Digest, ErrVerify, got)
	}
	return nil
}

// limited reads at most left bytes, and fails if there are more or ctx has
// ended.
type limited struct {
	ctx  context.Context //nolint:containedctx // for one copy
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, context.Cause(l.ctx)
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("%w: more bytes than its descriptor says", ErrVerify)
	}
	return n, err
}

// ending is how the name of a layer ends: as its first bytes say that it is
// compressed, whatever its media type says.
func ending(r *bufio.Reader) string {
	head, _ := r.Peek(4) // who reads it gets the error too
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return ".tar.gz"
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return ".tar.zst"
	}
	return ".tar"
}
