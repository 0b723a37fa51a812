package local

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/manifest"
)

// A Source is all that package manifest can make use of.
var (
	_ manifest.Fetcher = (*Source)(nil)
	_ manifest.Sizer   = (*Source)(nil)
	_ io.ReaderAt      = (*Blob)(nil)
)

// TestChanged writes to the file that is being read.
func TestChanged(t *testing.T) {
	t.Parallel()
	p := pack(t, single(t, layerOf(t, "x"))...)
	for _, tc := range []struct {
		name   string
		change func(path string) error
		fine   bool
	}{
		{"longer", func(path string) error { return os.Truncate(path, int64(len(p))+1) }, false},
		{"shorter", func(path string) error { return os.Truncate(path, 700) }, false},
		{"written again", func(path string) error {
			return errors.Join(os.WriteFile(path, p, 0o644), os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
		}, false},
		{"replaced", func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o644), os.Rename(path+".new", path))
		}, true},
		{"removed", os.Remove, true},
	} {
		for _, kind := range []string{"docker-archive", "docker-dir"} {
			t.Run(tc.name+" "+kind, func(t *testing.T) {
				t.Parallel()
				place := save(t, p)
				path := place
				if kind == "docker-dir" {
					place = untar(t, p)
					path = filepath.Join(place, "layer.tar")
				}
				src := source(t, kind+":"+place)
				b := src.Open(nil, layers(t, src)[0])
				r, err := b.ReadRange(t.Context(), 0, b.Size())
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				if err := tc.change(path); err != nil {
					t.Fatal(err)
				}
				_, atErr := b.ReadAt(make([]byte, 5), 20)
				_, err = io.Copy(io.Discard, r)
				if tc.fine {
					if err != nil || atErr != nil {
						t.Errorf("got %v and %v", err, atErr)
					}
					return
				}
				for _, err := range []error{err, atErr} {
					if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), filepath.Base(path)) || !strings.Contains(err.Error(), "open the image again") {
						t.Errorf("got %v", err)
					}
				}
			})
		}
	}
}

func TestBlob(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, "x")
	src := source(t, "docker-archive:"+save(t, pack(t, single(t, layer)...)))
	d := layers(t, src)[0]
	b := src.Open(nil, d)
	t.Run("ranges", func(t *testing.T) {
		t.Parallel()
		for _, r := range [][2]int64{{0, 0}, {0, 1}, {512, 100}, {d.Size - 1, 1}, {d.Size, 0}} {
			rc, err := b.ReadRange(t.Context(), r[0], r[1])
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(rc)
			if err != nil || string(got) != layer[r[0]:r[0]+r[1]] || rc.Close() != nil {
				t.Errorf("%v: %q, %v", r, got, err)
			}
		}
		for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, d.Size + 1}, {d.Size + 1, 0}, {1, 1<<63 - 1}} {
			if _, err := b.ReadRange(t.Context(), r[0], r[1]); err == nil {
				t.Errorf("%v was read", r)
			}
		}
		if n, err := b.ReadAt(make([]byte, 10), d.Size-5); n != 5 || !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %d, %v", n, err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		r, err := b.ReadRange(ctx, 0, b.Size())
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("other size", func(t *testing.T) {
		t.Parallel()
		wrong := d
		wrong.Size++
		if _, err := src.Open(nil, wrong).ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrVerify) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		other := ocispec.Descriptor{Digest: digest.FromString("other"), Size: 1}
		_, err := src.Open(nil, other).ReadAt(make([]byte, 1), 0)
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), other.Digest.String()) {
			t.Errorf("got %v", err)
		}
		if _, err := src.BlobSize(t.Context(), nil, other.Digest); !errdefs.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
		if _, err := src.Blob(t.Context(), nil, ocispec.Descriptor{Digest: "x"}); !errors.Is(err, ErrMalformed) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("size", func(t *testing.T) {
		t.Parallel()
		if n, err := src.BlobSize(t.Context(), nil, d.Digest); err != nil || n != d.Size {
			t.Errorf("got %d, %v", n, err)
		}
	})
}

// TestReadAtAllocates runs alone, as it counts what the process allocates.
func TestReadAtAllocates(t *testing.T) {
	src := source(t, "docker-archive:"+save(t, pack(t, single(t, layerOf(t, "x"))...)))
	b, p := src.Open(nil, layers(t, src)[0]), make([]byte, 100)
	n := testing.AllocsPerRun(100, func() {
		if _, err := b.ReadAt(p, 3); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrentReads(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, strings.Repeat("x", 100_000))
	src, err := Open(t.Context(), parse(t, "docker-dir:"+untar(t, pack(t, single(t, layer)...))), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := layers(t, src)[0]
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			b := src.Open(nil, d)
			p := make([]byte, 1000)
			for j := range 50 {
				off := int64((i*50 + j) * 211)
				if _, err := b.ReadAt(p, off); err != nil || string(p) != layer[off:off+1000] {
					t.Errorf("at %d: %v", off, err)
				}
			}
		})
	}
	wg.Wait()
	open := src.Open(nil, d)
	if err := errors.Join(src.Close(), src.Close()); err != nil {
		t.Error(err)
	}
	if _, err := open.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	file := save(t, []byte("x"))
	docker := untar(t, pack(t, single(t, layerOf(t, "x"))...))
	skopeo := untar(t, pack(t, entry{name: manifestFile, content: "{}"}))
	for _, tc := range []struct {
		name, ref, want string
		class           error
	}{
		{"no file", "docker-archive:" + filepath.Join(t.TempDir(), "x"), "not found: no such file", ErrNotFound},
		{"no folder", "oci:" + filepath.Join(t.TempDir(), "x"), "not found: no such file", ErrNotFound},
		{"a folder for a file", "docker-archive:" + t.TempDir(), "write docker-dir:DIR, oci:DIR or dir:DIR", ErrMalformed},
		{"a file for a folder", "docker-dir:" + file, "write docker-archive:FILE or oci-archive:FILE", ErrMalformed},
		{"a device", "docker-archive:" + os.DevNull, "it is not a regular file", ErrMalformed},
		{"empty folder", "docker-dir:" + t.TempDir(), "neither manifest.json nor repositories", ErrMalformed},
		{"a layout for an archive of docker save", "docker-archive:" + strings.TrimPrefix(newTree(t).places()[0], "oci-archive:"), "for one of this form write oci-archive:", ErrMalformed},
		{"a folder of docker save for a layout", "oci:" + docker, "for one of this form write docker-dir:", ErrMalformed},
		{"a folder of docker save for one of skopeo", "dir:" + docker, "for one of this form write docker-dir:", ErrMalformed},
		{"a folder of skopeo for one of docker save", "docker-dir:" + skopeo, "for one of this form write dir:", ErrMalformed},
		{"no transport", "alpine", "docker.io/library/alpine:latest: not supported", ErrUnsupported},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := failure(t, tc.ref); !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if _, err := List(t.Context(), parse(t, tc.ref), Options{}); !errors.Is(err, tc.class) {
				t.Errorf("List: %v", err)
			}
		})
	}
}

// TestManifestOfOthers does not take names for this place's that are not.
func TestManifestOfOthers(t *testing.T) {
	t.Parallel()
	src := source(t, "docker-archive:"+save(t, pack(t, single(t, layerOf(t, "x"))...)))
	if _, _, err := src.Manifest(t.Context(), parse(t, "alpine").Named()); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// TestCancelledHashing stops when nobody waits any longer.
func TestCancelledHashing(t *testing.T) {
	t.Parallel()
	p := pack(t, join(old("top", "", layerOf(t, strings.Repeat("x", 1<<20))), []entry{repositories(t, "top")})...)
	in, err := openDirectory(untar(t, p))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	d, err := openDocker(in)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := d.pick(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
