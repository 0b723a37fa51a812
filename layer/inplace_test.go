package layer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// indexed returns a layer that was only indexed.
func indexed(t testing.TB, p []byte, file string) *bottled {
	t.Helper()
	x, err := Stream(t.Context(), &blob{bytes: p}, descriptor(p, mediaTar, nil), "", StreamOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return &bottled{x, p, p}
}

func TestInPlaceIsOfBlobsThatAreTheirAddressSpace(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		x    *Index
		want bool
	}{
		{"tar", bottle(t, "tar", mixed...).x, true},
		{"file", indexed(t, noise(1<<20, 1), "f").x, true},
		{"file of no bytes", indexed(t, nil, "f").x, true},
		{"gzip", bottle(t, "gzip", mixed...).x, false},
		{"zstd", bottle(t, "zstd", mixed...).x, false},
		{"estargz", bottle(t, "estargz", mixed...).x, false},
	} {
		if _, ok := InPlace(tc.x, bytes.NewReader(nil)); ok != tc.want {
			t.Errorf("%s: %v", tc.name, ok)
		}
	}
	other := copyIndex(t, bottle(t, "tar", 2<<20).x) // as somebody may hand it out
	other.Spans[0].CLen--
	if _, ok := InPlace(other, bytes.NewReader(nil)); ok {
		t.Error("spans elsewhere")
	}
}

// What is read in place is verified once, and never asked of the source.
func TestReadInPlace(t *testing.T) {
	t.Parallel()
	for _, b := range []*bottled{bottle(t, "tar", mixed...), indexed(t, noise(3<<20+5, 3), "a/f")} {
		t.Run(b.x.Info.Format.String(), func(t *testing.T) {
			t.Parallel()
			at := &counted{Reader: bytes.NewReader(b.blob)}
			s, _ := InPlace(b.x, at)
			w := &wire{}
			l := b.open(t, w, s, Options{})
			if n := l.Present(); n != 0 {
				t.Errorf("%d bytes present", n)
			}
			var wg sync.WaitGroup
			for reader := range uint64(4) {
				wg.Go(func() { readRandomly(t, l, b.space, rand.New(rand.NewPCG(reader, 1))) })
			}
			wg.Wait()
			if err := l.Fill(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if n := l.Present(); n != b.x.Info.AddrSize || w.requests.Load() != 0 {
				t.Errorf("%d bytes present, %d requests", n, w.requests.Load())
			}
			before := at.calls()
			readRandomly(t, l, b.space, rand.New(rand.NewPCG(9, 9)))
			if n := at.calls() - before; n != 60 {
				t.Errorf("%d reads of the blob for 60", n)
			}
		})
	}
}

// counted counts the reads of a blob.
type counted struct {
	*bytes.Reader
	mu sync.Mutex // guards what follows
	n  int
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Reader.ReadAt(p, off)
}

func (c *counted) calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// A blob that is not what it was when it was indexed is not served.
func TestReadInPlaceVerifies(t *testing.T) {
	t.Parallel()
	always := func(int64) bool { return true }
	for _, tc := range []struct {
		name   string
		change func([]byte) []byte
		source *wire
		want   error
	}{
		{"other bytes", func(p []byte) []byte { p[70] ^= 1; return p }, &wire{flip: always}, ErrVerify},
		{"cut off", func(p []byte) []byte { return p[:100] }, &wire{cut: always}, errdefs.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := indexed(t, noise(1000, 1), "f")
			changed := tc.change(bytes.Clone(b.blob))
			s, _ := InPlace(b.x, bytes.NewReader(changed))
			l := b.open(t, tc.source, s, Options{})
			if n, err := l.ReadAt(t.Context(), make([]byte, 1000), 0); !errors.Is(err, tc.want) || n != 0 {
				t.Errorf("%d bytes, %v", n, err)
			}
			if n := l.Present(); n != 0 {
				t.Errorf("%d bytes present", n)
			}
		})
	}
}

func TestStreamFileDigestOfBlob(t *testing.T) {
	t.Parallel()
	p := []byte("content")
	b := indexed(t, p, "f")
	if b.x.Blob() != digest.FromBytes(p) || b.x.Info.Format.String() != "file" {
		t.Errorf("%s, %v", b.x.Blob(), b.x.Info.Format)
	}
}
