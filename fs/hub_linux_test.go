package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// hub is a Registry in memory that notes what it is asked for, by the names
// that a test has given its documents, and can be made to fail.
type hub struct {
	mu        sync.Mutex // guards all
	docs      map[string][]byte
	types     map[digest.Digest]string
	tags      map[string]digest.Digest
	referrers map[string][]ocispec.Descriptor
	names     map[digest.Digest]string
	broken    map[string]error // by name
	asked     []string
	whole     bool       // it serves no byte ranges
	urls      [][]string // of the layers that Layer was called for
}

func newHub() *hub {
	return &hub{
		docs: map[string][]byte{}, types: map[digest.Digest]string{}, tags: map[string]digest.Digest{},
		referrers: map[string][]ocispec.Descriptor{}, names: map[digest.Digest]string{}, broken: map[string]error{},
	}
}

// put stores a document in a repository.
func (h *hub) put(repo, name, mediaType string, raw []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	h.docs[repo+"@"+d.Digest.String()], h.types[d.Digest], h.names[d.Digest] = raw, mediaType, name
	return d
}

func (h *hub) tag(repo, tag string, d ocispec.Descriptor) { h.tags[repo+":"+tag] = d.Digest }

// attach makes d, of the type and with annotations, a referrer of an image.
func (h *hub) attach(repo string, to, d ocispec.Descriptor, artifactType string, annotations map[string]string) {
	d.ArtifactType, d.Annotations = artifactType, annotations
	key := repo + "@" + to.Digest.String()
	h.referrers[key] = append(h.referrers[key], d)
}

// log returns what was asked for since it was last called, in order of name.
func (h *hub) log() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.asked)
	out := strings.Join(h.asked, " ")
	h.asked = nil
	return out
}

func (h *hub) ask(repo string, d digest.Digest, name string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.names[d]; n != "" {
		name = n
	}
	h.asked = append(h.asked, name)
	if err := h.broken[name]; err != nil {
		return nil, err
	}
	raw, ok := h.docs[repo+"@"+d.String()]
	if !ok {
		return nil, fmt.Errorf("%s %s: %w", repo, name, errdefs.ErrNotFound)
	}
	return raw, nil
}

func (h *hub) Manifest(_ context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	var d digest.Digest
	name := "unknown"
	switch r := ref.(type) {
	case reference.Digested:
		d = r.Digest()
	case reference.Tagged:
		if d = h.tags[ref.Name()+":"+r.Tag()]; d == "" {
			name = "tag"
		}
	}
	raw, err := h.ask(ref.Name(), d, name)
	return ocispec.Descriptor{MediaType: h.types[d], Digest: d, Size: int64(len(raw))}, raw, err
}

func (h *hub) Blob(_ context.Context, ref reference.Named, d ocispec.Descriptor) ([]byte, error) {
	return h.ask(ref.Name(), d.Digest, "unknown")
}

// errSilent: a registry that never answers.
var errSilent = errors.New("silence")

func (h *hub) Referrers(ctx context.Context, ref reference.Named, d digest.Digest) ([]ocispec.Descriptor, error) {
	if errors.Is(h.broken["referrers"], errSilent) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, "referrers")
	return h.referrers[ref.Name()+"@"+d.String()], h.broken["referrers"]
}

// BlobSize is manifest.Sizer's.
func (h *hub) BlobSize(_ context.Context, ref reference.Named, d digest.Digest) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, "size")
	return int64(len(h.docs[ref.Name()+"@"+d.String()])), nil
}

func (h *hub) Layer(ref reference.Named, d ocispec.Descriptor) layer.Source {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.urls = append(h.urls, d.URLs)
	return source{h, ref.Name(), d}
}

type source struct {
	hub  *hub
	repo string
	desc ocispec.Descriptor
}

func (s source) Size() int64 { return s.desc.Size }

func (s source) ReadRange(_ context.Context, off, n int64) (io.ReadCloser, error) {
	raw, err := s.hub.ask(s.repo, s.desc.Digest, "unknown")
	if err != nil {
		return nil, err
	}
	if s.hub.whole && n < int64(len(raw)) {
		return nil, errdefs.ErrNotImplemented
	}
	if off+n > int64(len(raw)) {
		return nil, io.ErrUnexpectedEOF
	}
	return io.NopCloser(bytes.NewReader(raw[off:][:n])), nil
}

// folder is a Cache in a folder, whose stores have nothing.
type folder struct {
	dir string

	mu    sync.Mutex // guards refs and locks
	refs  map[string]digest.Digest
	locks map[digest.Digest]chan struct{}
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	return &folder{dir: t.TempDir(), refs: map[string]digest.Digest{}, locks: map[digest.Digest]chan struct{}{}}
}

func (f *folder) Lock(ctx context.Context, key digest.Digest) (func() error, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks[key] == nil {
		f.locks[key] = make(chan struct{}, 1)
	}
	c := f.locks[key]
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case c <- struct{}{}:
		return func() error { <-c; return nil }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (f *folder) path(kind string, key digest.Digest) string {
	return filepath.Join(f.dir, strings.ReplaceAll(kind, "/", "-"), key.Encoded())
}

func (f *folder) Read(kind string, key digest.Digest) ([]byte, error) {
	return os.ReadFile(f.path(kind, key))
}

func (f *folder) Map(kind string, key digest.Digest) (*flat.Mapping, error) {
	return flat.Map(f.path(kind, key))
}

func (f *folder) Write(kind string, key digest.Digest, data []byte) error {
	path := f.path(kind, key)
	// As another file: the old one may be mapped.
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.dir, "new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	return errors.Join(err, tmp.Close(), os.Rename(tmp.Name(), path))
}

func (f *folder) Ref(name string) (digest.Digest, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.refs[name]; d != "" {
		return d, time.Now(), nil
	}
	return "", time.Time{}, iofs.ErrNotExist
}

func (f *folder) SetRef(name string, d digest.Digest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs[name] = d
	return nil
}

func (f *folder) TouchRef(string) error { return nil }

func (f *folder) Store(digest.Digest, int64, int) (layer.Store, error) { return nothing{}, nil }

func (f *folder) Stage(context.Context, digest.Digest) (layer.Stage, error) { return nothing{}, nil }

// nothing is a Store that never has anything, and a Stage that keeps nothing.
type nothing struct{}

func (nothing) Has(int) bool                               { return false }
func (nothing) Read([]byte, int64, int, int) (bool, error) { return false, nil }
func (nothing) Put(int, int64, []byte) error               { return nil }
func (nothing) Write(p []byte) (int, error)                { return len(p), nil }
func (nothing) Commit(int64, int) error                    { return nil }
func (nothing) Close() error                               { return nil }

// image puts an image with layers into a repository.
func (h *hub) image(t *testing.T, repo, tag string, diffIDs []digest.Digest, edit func(*ocispec.Manifest), layers ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	config := ocispec.Image{Platform: manifest.DefaultPlatform()}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: h.put(repo, "config", ocispec.MediaTypeImageConfig, encoded(t, config)), Layers: layers,
	}
	if edit != nil {
		edit(&m)
	}
	d := h.put(repo, "manifest", m.MediaType, encoded(t, m))
	h.tag(repo, tag, d)
	return d
}
