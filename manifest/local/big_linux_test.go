package local

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	bigSize = 2 << 30 // bytes of its layer
	bigRead = 64 << 10
)

// bigArchive is an archive with one layer of bigSize bytes, which are a hole.
func bigArchive(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "big.tar")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var c ocispec.Image
	c.OS, c.Architecture, c.RootFS.Type = "linux", "amd64", "layers"
	c.RootFS.DiffIDs = []digest.Digest{digest.FromString("of no use here")}
	write := func(e entry, size int64) error {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: e.name, Size: size, Mode: 0o644}); err != nil {
			return err
		}
		b.WriteString(e.content)
		if _, err := out.Write(b.Bytes()); err != nil {
			return err
		}
		// What is missing of the data and of its last block is a hole.
		_, err := out.Seek((size+511)/512*512-int64(len(e.content)), io.SeekCurrent)
		return err
	}
	raw := encoded(t, c)
	listed := encoded(t, []saved{{Config: "config", Layers: []string{"layer"}}})
	for _, e := range []entry{{name: "layer"}, {name: "config", content: raw}, {name: manifestFile, content: listed}} {
		size := int64(len(e.content))
		if e.name == "layer" {
			size = bigSize
		}
		if err := write(e, size); err != nil {
			t.Fatal(err)
		}
	}
	end, err := out.Seek(1024, io.SeekCurrent)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Truncate(end); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// bytesRead is what the calling thread has read so far.
func bytesRead(t testing.TB) int64 {
	t.Helper()
	p, err := os.ReadFile("/proc/thread-self/io")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscanf(string(p), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestOpenCopiesNothing opens an archive of 2 GiB with a few reads, and nothing
// in the folder for temporary files.
func TestOpenCopiesNothing(t *testing.T) {
	t.Parallel()
	path, tmp := bigArchive(t), t.TempDir()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := bytesRead(t)
	src, err := Open(t.Context(), parse(t, "docker-archive:"+path), Options{Tmp: tmp})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	l := layers(t, src)[0]
	if l.Size != bigSize {
		t.Fatalf("the layer has %d bytes", l.Size)
	}
	if _, err := src.Open(nil, l).ReadAt(make([]byte, 4096), bigSize-4096); err != nil {
		t.Error(err)
	}
	if n := bytesRead(t) - before; n > bigRead {
		t.Errorf("%d bytes were read", n)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// BenchmarkOpen is the time in which an archive of 2 GiB is ready to be read.
func BenchmarkOpen(b *testing.B) {
	ref := parse(b, "docker-archive:"+bigArchive(b))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := bytesRead(b)
	b.ReportAllocs()
	for b.Loop() {
		src, err := Open(b.Context(), ref, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := src.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bytesRead(b)-before)/float64(b.N), "bytesread/op")
}
