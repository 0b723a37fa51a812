package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/schema1"
	"github.com/peelfs/peel/manifest"
)

// Options of Open and List.
type Options struct {
	// Tmp is the folder that archives which are compressed as a whole are
	// unpacked to; "" is that of the system.
	Tmp string
	Log *logrus.Entry // nil: what is unusual is not told
}

// Entry is one image of a place.
type Entry struct {
	// Names are what may follow the path in a reference: names or tags, or
	// else "@" and a number or digest. There is none in a folder of the
	// transport dir.
	Names []string
	Desc  ocispec.Descriptor // what Source.Manifest returns for it
}

// layout is a way to arrange images in a folder.
type layout interface {
	// entries lists the images.
	entries(ctx context.Context) ([]Entry, error)
	// pick returns the image that within names, and its document, verified.
	// Other images of the place may be damaged.
	pick(ctx context.Context, within string) (Entry, []byte, error)
	// find opens a blob or document of the image that was picked. What is not
	// there is an fs.ErrNotExist. The digest is valid.
	find(d digest.Digest) (*file, error)
}

// referrer is a layout that knows what is attached to manifests.
type referrer interface {
	referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error)
}

// Source is the place of an image, opened.
type Source struct {
	place string // for messages
	name  string // repository of references that mean this place
	in    folder
	from  layout
	names []string
	desc  ocispec.Descriptor
	raw   []byte

	mu    sync.Mutex              // guards files
	files map[digest.Digest]*file // nil once it is closed
}

// Open opens the place that ref names and finds the image in it. It fails if
// ref is of no transport, and with an ErrAmbiguous that lists the names if it
// does not say which of several images it means.
func Open(ctx context.Context, ref manifest.Reference, o Options) (*Source, error) {
	s, err := open(ctx, ref, o)
	if err != nil {
		return nil, place(ref, err)
	}
	picked, raw, err := s.from.pick(ctx, ref.Within())
	if err != nil {
		return nil, place(ref, errors.Join(err, s.in.Close()))
	}
	s.names, s.desc, s.raw = picked.Names, picked.Desc, raw
	return s, nil
}

// List is what images there are in the place of ref, whichever of them ref
// names.
func List(ctx context.Context, ref manifest.Reference, o Options) ([]Entry, error) {
	s, err := open(ctx, ref, o)
	if err != nil {
		return nil, place(ref, err)
	}
	all, err := s.from.entries(ctx)
	if err = errors.Join(err, s.in.Close()); err != nil {
		return nil, place(ref, err)
	}
	return all, nil
}

func place(ref manifest.Reference, err error) error {
	if ref.Transport() == "" {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return fmt.Errorf("%s:%s: %w", ref.Transport(), ref.Location(), err)
}

func open(ctx context.Context, ref manifest.Reference, o Options) (*Source, error) {
	in, err := openFolder(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	from, err := openLayout(ref.Transport(), in)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return &Source{
		place: ref.Transport() + ":" + ref.Location(), name: ref.Named().Name(),
		in: in, from: from, files: map[digest.Digest]*file{},
	}, nil
}

func openFolder(ctx context.Context, ref manifest.Reference, o Options) (folder, error) {
	switch ref.Transport() {
	case manifest.TransportDockerArchive, manifest.TransportOCIArchive:
		return openArchive(ctx, ref.Location(), o)
	case manifest.TransportDockerDir, manifest.TransportOCI, manifest.TransportDir:
		return openDirectory(ref.Location())
	}
	return nil, fmt.Errorf("%w: it names no place on this machine", ErrUnsupported)
}

func openLayout(transport string, in folder) (layout, error) {
	from, err := openForm(transport, in)
	if errors.Is(err, ErrMalformed) {
		if other := formOf(transport, in); other != "" && other != transport {
			err = fmt.Errorf("%w; for one of this form write %s:…", err, other)
		}
	}
	return from, err
}

// formOf is the transport of a place that was taken for another's, going by
// its files; "" if these tell nothing.
func formOf(taken string, in folder) string {
	docker, layout, dir := manifest.TransportDockerDir, manifest.TransportOCI, manifest.TransportDir
	if taken == manifest.TransportDockerArchive || taken == manifest.TransportOCIArchive {
		docker, layout, dir = manifest.TransportDockerArchive, manifest.TransportOCIArchive, ""
	}
	raw, err := document(in, manifestFile, maxDocument)
	switch raw = bytes.TrimSpace(raw); {
	case err == nil && bytes.HasPrefix(raw, []byte("[")):
		return docker
	case err == nil && bytes.HasPrefix(raw, []byte("{")):
		return dir
	}
	if _, err := document(in, ocispec.ImageLayoutFile, maxV1); err == nil {
		return layout
	}
	return ""
}

func openForm(transport string, in folder) (layout, error) {
	switch transport {
	case manifest.TransportDockerArchive, manifest.TransportDockerDir:
		return openDocker(in)
	case manifest.TransportDir:
		return openSkopeo(in)
	}
	return openOCI(in)
}

// Names are what the image is called in its place, as Entry has them.
func (s *Source) Names() []string { return s.names }

// Manifest implements manifest.Fetcher: the document that was picked, or that
// of ref's digest.
func (s *Source) Manifest(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	digested, ok := ref.(reference.Digested)
	switch {
	case ok && digested.Digest() != s.desc.Digest:
		d := digested.Digest()
		raw, err := s.document(d)
		if err != nil {
			return ocispec.Descriptor{}, nil, s.fail(fmt.Errorf("manifest %s: %w", d, err))
		}
		return ocispec.Descriptor{Digest: d, Size: int64(len(raw))}, raw, nil
	case !ok && ref.Name() != s.name:
		return ocispec.Descriptor{}, nil, s.fail(fmt.Errorf("%w: no image %s", ErrNotFound, quote(ref.String())))
	}
	return s.desc, s.raw, nil
}

// Blob implements manifest.Fetcher. The blob has at most manifest.MaxDocument
// bytes.
func (s *Source) Blob(ctx context.Context, _ reference.Named, d ocispec.Descriptor) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := s.document(d.Digest)
	if err == nil && int64(len(raw)) != d.Size {
		err = fmt.Errorf("%w: it has %d bytes, want %d", ErrVerify, len(raw), d.Size)
	}
	if err != nil {
		return nil, s.fail(fmt.Errorf("blob %s: %w", d.Digest, err))
	}
	return raw, nil
}

// BlobSize implements manifest.Sizer.
func (s *Source) BlobSize(_ context.Context, _ reference.Named, d digest.Digest) (int64, error) {
	f, err := s.file(d)
	if err != nil {
		return 0, s.fail(fmt.Errorf("blob %s: %w", d, err))
	}
	return f.size, nil
}

// Referrers lists the manifests whose subject is d. Only OCI layouts have any.
func (s *Source) Referrers(ctx context.Context, _ reference.Named, d digest.Digest) ([]ocispec.Descriptor, error) {
	from, ok := s.from.(referrer)
	if !ok {
		return nil, nil
	}
	found, err := from.referrers(ctx, d)
	if err != nil {
		return nil, s.fail(fmt.Errorf("referrers of %s: %w", d, err))
	}
	return found, nil
}

// Open is the blob that d describes. Whether it is there is found out by the
// first read.
func (s *Source) Open(_ reference.Named, d ocispec.Descriptor) *Blob {
	return &Blob{from: s, desc: d}
}

// Close closes all files. Reads fail from then on.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		return nil
	}
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	s.files = nil
	return errors.Join(append(errs, s.in.Close())...)
}

func (s *Source) fail(err error) error { return fmt.Errorf("%s: %w", s.place, err) }

// document reads a document once; it is not kept open.
func (s *Source) document(d digest.Digest) ([]byte, error) {
	f, err := s.find(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return verified(f, d)
}

// file opens a blob, which then stays open.
func (s *Source) file(d digest.Digest) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[d]; f != nil {
		return f, nil
	}
	if s.files == nil {
		return nil, os.ErrClosed
	}
	f, err := s.find(d)
	if err != nil {
		return nil, err
	}
	s.files[d] = f
	return f, nil
}

func (s *Source) find(d digest.Digest) (*file, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, quote(string(d)), err)
	}
	f, err := s.from.find(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is not there; save or copy the image again", ErrNotFound)
	}
	return f, err
}

// verified reads a document whose digest is d.
func verified(f *file, d digest.Digest) ([]byte, error) {
	raw, err := f.read(maxDocument)
	if err != nil {
		return nil, err
	}
	if got := d.Algorithm().FromBytes(raw); got != d && digestOf(raw, d.Algorithm()) != d {
		return nil, fmt.Errorf("%w: %s has digest %s", ErrVerify, quote(f.name), got)
	}
	return raw, nil
}

// digestOf is the digest by which registries know a document: that of its
// bytes or, if it is a signed manifest of schema 1, of what is signed.
func digestOf(raw []byte, by digest.Algorithm) digest.Digest {
	if payload, err := schema1.Payload(raw); err == nil {
		return by.FromBytes(payload)
	}
	return by.FromBytes(raw)
}
