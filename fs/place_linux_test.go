package fs

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/manifest/local"
)

// place is a Registry over a place on this machine that counts.
type place struct {
	*local.Source
	read  atomic.Int64 // bytes of layers by range: what passes and misses of a store take
	in    atomic.Int64 // bytes of layers read in place
	asked atomic.Int64 // for documents
}

func openPlace(t *testing.T, ref string) *place {
	t.Helper()
	r, err := manifest.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	s, err := local.Open(t.Context(), r, local.Options{Tmp: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &place{Source: s}
}

func (p *place) Manifest(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	p.asked.Add(1)
	return p.Source.Manifest(ctx, ref)
}

func (p *place) Layer(ref reference.Named, d ocispec.Descriptor) layer.Source {
	return counted{p.Open(ref, d), p}
}

type counted struct {
	*local.Blob
	place *place
}

func (c counted) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	c.place.read.Add(n)
	return c.Blob.ReadRange(ctx, off, n)
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	c.place.in.Add(int64(len(p)))
	return c.Blob.ReadAt(p, off)
}

// unstaged is a Cache that refuses to take whole layers, and has all bytes of
// some.
type unstaged struct {
	*folder
	whole map[digest.Digest][]byte
}

func (u unstaged) Stage(context.Context, digest.Digest) (layer.Stage, error) {
	return nil, errors.New("a layer of this machine is copied")
}

func (u unstaged) Store(key digest.Digest, _ int64, _ int) (layer.Store, error) {
	if data, ok := u.whole[key]; ok {
		return full{data: data}, nil
	}
	return nothing{}, nil
}

// full is a Store that has everything.
type full struct {
	nothing
	data []byte
}

func (full) Has(int) bool { return true }

func (f full) Read(p []byte, addr int64, _, _ int) (bool, error) {
	return copy(p, f.data[addr:]) == len(p), nil
}

// placed writes an image of one layer to a layout.
func placed(t *testing.T, dir, tag string, layers ...testkit.Layer) {
	t.Helper()
	l, err := testkit.NewLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Image(layers...)
	if err == nil {
		err = l.Tag(tag, d)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A layer on this machine is read once for its index, and then where it lies.
func TestPlaceIsReadInPlace(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	content := testkit.Noise(1, size)
	for _, tc := range []struct {
		name    string
		form    testkit.Form
		whole   bool  // the cache has all bytes
		passes  int64 // over the blob, in the first opening
		inPlace bool
	}{
		{name: "tar", form: testkit.PlainTar, passes: 1, inPlace: true},
		{name: "tar, in the cache", form: testkit.PlainTar, whole: true, passes: 1},
		{name: "gzip", form: testkit.Gzip, passes: 1},
		{name: "eStargz", form: testkit.Stargz},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "layout")
			l := testkit.Encode(t, tc.form, testkit.File("a", content))
			placed(t, dir, "v1", l)
			cache := unstaged{newFolder(t), map[digest.Digest][]byte{}}
			if tc.whole {
				cache.whole[l.Desc.Digest] = l.Blob
			}
			for round := range int64(2) {
				p := openPlace(t, "oci:"+dir+":v1")
				m, err := Open(t.Context(), "oci:"+dir+":v1", Options{Registry: p, Cache: cache, Pull: PullNever})
				if err != nil {
					t.Fatal(err)
				}
				if got, want := p.read.Load()/l.Desc.Size, tc.passes*(1-round); got != want || round == 1 && p.read.Load() > 0 {
					t.Errorf("round %d: %d bytes of %d were read", round, p.read.Load(), l.Desc.Size)
				}
				if !m.Local || p.asked.Load() == 0 {
					t.Errorf("round %d: local %t, asked %d times", round, m.Local, p.asked.Load())
				}
				f, err := m.FS(t.Context()).Open("a")
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(f)
				if err != nil || string(got) != string(content) {
					t.Errorf("round %d: %d bytes that are not the file's, %v", round, len(got), err)
				}
				if in := p.in.Load() >= size; in != tc.inPlace {
					t.Errorf("round %d: %d bytes were read in place", round, p.in.Load())
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What a tag of a layout means is looked up each time, whatever Pull says.
func TestPlaceChanges(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "layout")
	cache := newFolder(t)
	for _, name := range []string{"a", "b"} {
		placed(t, dir, "v1", testkit.Encode(t, testkit.Gzip, testkit.File(name, []byte(name))))
		m, err := Open(t.Context(), "oci:"+dir+":v1", Options{Registry: openPlace(t, "oci:"+dir+":v1"), Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{".", name + " " + digest.FromString(name).String()}
		if d := cmp.Diff(want, shown(t, m)); d != "" {
			t.Error(d)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(cache.refs) > 0 {
		t.Errorf("the cache remembers %v", cache.refs)
	}
}
