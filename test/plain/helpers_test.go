//go:build linux

package plain

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	fileSize = 500_000 // bytes of each file of the generated images
	frame    = 1 << 20 // bytes of tar per frame of a zstd layer of many frames
)

// text is n bytes of half the size when compressed.
func text(seed uint64, n int) []byte {
	b := testkit.Noise(seed, n)
	for i := range b {
		b[i] = "0123456789abcdef"[b[i]&15]
	}
	return b
}

// files is a layer's worth of entries, all of fileSize.
func files(layer, n int) []testkit.Entry {
	var out []testkit.Entry
	for i := range n {
		out = append(out, testkit.File(fmt.Sprintf("layer-%d-file-%d", layer, i), text(uint64(1000*layer+i), fileSize)))
	}
	return out
}

// same compares a file below root with its entry.
func same(root string, e testkit.Entry) error {
	got, err := os.ReadFile(filepath.Join(root, e.Name))
	if err == nil && !bytes.Equal(got, e.Data) {
		err = fmt.Errorf("%s: %d bytes that are not the file's", e.Name, len(got))
	}
	return err
}

// sameAll compares all files below root with their entries.
func sameAll(t *testing.T, root string, entries []testkit.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := same(root, e); err != nil {
			t.Error(err)
		}
	}
}

// layerOf is a layer of which the test has made the blob itself.
func layerOf(mediaType string, blob, archive []byte) testkit.Layer {
	return testkit.Layer{
		Desc:   ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))},
		DiffID: digest.FromBytes(archive),
		Blob:   blob,
	}
}

func archive(t *testing.T, entries []testkit.Entry) []byte {
	t.Helper()
	a, err := testkit.Tar(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// zstdFrames compresses a tar to a frame for every size bytes of it.
func zstdFrames(t *testing.T, a []byte, size int) testkit.Layer {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	var blob []byte
	for part := range slices.Chunk(a, size) {
		blob = w.EncodeAll(part, blob)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return layerOf(ocispec.MediaTypeImageLayerZstd, blob, a)
}

// A form is a way to write a layer that peel can enter in the middle.
type form struct {
	name   string
	encode func(t *testing.T, entries []testkit.Entry) testkit.Layer
}

func forms() []form {
	of := func(f testkit.Form) func(*testing.T, []testkit.Entry) testkit.Layer {
		return func(t *testing.T, entries []testkit.Entry) testkit.Layer {
			t.Helper()
			return testkit.Encode(t, f, entries...)
		}
	}
	return []form{
		{"gzip", of(testkit.Gzip)},
		{"gzip members", of(testkit.GzipMembers)},
		{"tar", of(testkit.PlainTar)},
		{"zstd frames", func(t *testing.T, entries []testkit.Entry) testkit.Layer {
			t.Helper()
			return zstdFrames(t, archive(t, entries), frame)
		}},
	}
}

// gone evicts every span, and makes the kernel forget what it has read. It
// returns the mean length of the first layer's spans, uncompressed bytes.
func gone(t *testing.T, p *testkit.Peel, root string) int64 {
	t.Helper()
	layers := p.Evict()
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return testkit.Forget(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return layers[0].Size / layers[0].Spans
}

// readAtOnce compares all files, several at a time, in an order of its own.
func readAtOnce(t *testing.T, root string, entries []testkit.Entry) {
	t.Helper()
	const readers = 4
	order := rand.New(rand.NewPCG(5, 6)).Perm(len(entries))
	var all sync.WaitGroup
	for r := range readers {
		all.Go(func() {
			for k := r; k < len(order); k += readers {
				if err := same(root, entries[order[k]]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
