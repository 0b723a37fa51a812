package dockersave

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What skopeo writes beside blobs; it reads any version of 1.
const (
	dirVersionFile  = "version"
	dirVersion      = "Directory Transport Version: 1.1\n"
	dirManifestFile = "manifest.json"
)

// Dir is a folder with one image: its manifest, and its blobs by the hex of
// their digests.
type Dir struct{ path string }

// NewDir begins to write into a folder that is empty.
func NewDir(path string) *Dir { return &Dir{path} }

// Blob writes a blob, which r yields.
func (d *Dir) Blob(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	if err := desc.Digest.Validate(); err != nil { // before it becomes a name
		return fmt.Errorf("%.100q: %w", desc.Digest, err)
	}
	return d.file(desc.Digest.Encoded(), func(w io.Writer) error { return copyBlob(ctx, w, desc, r) })
}

// Manifest writes the manifest, and with it makes the folder an image.
func (d *Dir) Manifest(raw []byte) error {
	err := d.file(dirManifestFile, func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	})
	if err != nil {
		return err
	}
	return d.file(dirVersionFile, func(w io.Writer) error {
		_, err := io.WriteString(w, dirVersion)
		return err
	})
}

func (d *Dir) file(name string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(filepath.Join(d.path, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
