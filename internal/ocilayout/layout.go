package ocilayout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrMalformed: the folder is no image layout of a known version.
	ErrMalformed = sentinel.New("no image layout", errdefs.ErrFailedPrecondition)
	// ErrVerify: the content is not what its digest or size promises.
	ErrVerify = sentinel.New("verification failed", errdefs.ErrDataLoss)
	// ErrTaken: what an image was to be called is the name of another.
	ErrTaken = sentinel.New("another image has this tag", errdefs.ErrAlreadyExists)
)

// maxIndex bounds index.json and oci-layout, in bytes.
const maxIndex = 8 << 20

// Layout is an image layout to write to.
type Layout struct{ dir string }

// Open makes dir an image layout if it is missing or empty. What it holds
// otherwise must be one.
func Open(dir string) (*Layout, error) {
	l := &Layout{dir}
	if err := l.prepare(); err != nil {
		return nil, l.fail(err)
	}
	return l, nil
}

func (l *Layout) fail(err error) error { return fmt.Errorf("image layout %s: %w", l.dir, err) }

func (l *Layout) prepare() error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	return l.locked(func() error {
		var found ocispec.ImageLayout
		err := l.readJSON(ocispec.ImageLayoutFile, &found)
		switch {
		case err == nil && found.Version != ocispec.ImageLayoutVersion:
			return fmt.Errorf("%w: version %.20q, want %s", ErrMalformed, found.Version, ocispec.ImageLayoutVersion)
		case err == nil:
			_, err = l.readIndex()
		case errors.Is(err, fs.ErrNotExist):
			err = l.create()
		}
		if err != nil {
			return err
		}
		return os.MkdirAll(l.blobs(), 0o755)
	})
}

// create fills an empty folder. The file that makes it a layout comes last.
func (l *Layout) create() error {
	names, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		// What an earlier try may have left.
		if !slices.Contains([]string{ocispec.ImageBlobsDir, ocispec.ImageIndexFile}, n.Name()) {
			return fmt.Errorf("%w: it has a %.100q and no %s", ErrMalformed, n.Name(), ocispec.ImageLayoutFile)
		}
	}
	if err := os.MkdirAll(l.blobs(), 0o755); err != nil {
		return err
	}
	if _, err := l.readIndex(); errors.Is(err, fs.ErrNotExist) {
		if err := l.writeJSON(ocispec.ImageIndexFile, emptyIndex()); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return l.writeJSON(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
}

func emptyIndex() ocispec.Index {
	return ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
}

func (l *Layout) blobs() string {
	return filepath.Join(l.dir, ocispec.ImageBlobsDir, digest.SHA256.String())
}

// path is where a blob lies.
func (l *Layout) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("blob %.100q: %w", d.String(), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("blob %s: %w", d, digest.ErrDigestUnsupported)
	}
	return filepath.Join(l.blobs(), d.Encoded()), nil
}

// HasBlob reports whether the blob is there with its size.
func (l *Layout) HasBlob(_ context.Context, d ocispec.Descriptor) (bool, error) {
	path, err := l.path(d.Digest)
	if err != nil {
		return false, l.fail(err)
	}
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, l.fail(err)
	}
	return fi.Mode().IsRegular() && fi.Size() == d.Size, nil
}

// PutManifest stores a manifest or index. With a tag it becomes what the tag
// names in index.json, instead of what that named before; without one it is a
// blob like others, for an index to refer to.
func (l *Layout) PutManifest(ctx context.Context, raw []byte, mediaType, tag string) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := l.putBlob(ctx, raw, d.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	if tag == "" {
		return d, nil
	}
	if err := l.locked(func() error { return l.name(d, tag) }); err != nil {
		return ocispec.Descriptor{}, l.fail(err)
	}
	return d, nil
}

func (l *Layout) putBlob(ctx context.Context, raw []byte, d digest.Digest) (err error) {
	w, err := l.Create(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := w.Write(raw); err != nil {
		return err
	}
	return w.Commit(ctx, d)
}

// name changes index.json. The lock must be held.
func (l *Layout) name(d ocispec.Descriptor, tag string) error {
	index, err := l.readIndex()
	if err != nil {
		return err
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
		return m.Annotations[ocispec.AnnotationRefName] == tag
	})
	d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	index.Manifests = append(index.Manifests, d)
	return l.writeJSON(ocispec.ImageIndexFile, index)
}

func (l *Layout) readIndex() (ocispec.Index, error) {
	var index ocispec.Index
	if err := l.readJSON(ocispec.ImageIndexFile, &index); err != nil {
		return index, err
	}
	if index.SchemaVersion != 2 {
		return index, fmt.Errorf("%w: %s has schema version %d, want 2", ErrMalformed, ocispec.ImageIndexFile, index.SchemaVersion)
	}
	return index, nil
}

func (l *Layout) readJSON(name string, doc any) error {
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return err
	}
	if len(raw) > maxIndex {
		return fmt.Errorf("%w: %s has more than %d bytes", ErrMalformed, name, maxIndex)
	}
	if err := json.Unmarshal(raw, doc); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrMalformed, name, err)
	}
	return nil
}

// writeJSON replaces a file of the layout.
func (l *Layout) writeJSON(name string, doc any) error {
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if len(raw) > maxIndex {
		return fmt.Errorf("%s would have %d bytes, at most %d", name, len(raw), maxIndex)
	}
	f, err := l.temporary()
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return publish(f, err, filepath.Join(l.dir, name))
}
