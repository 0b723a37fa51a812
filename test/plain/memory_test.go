//go:build linux

package plain

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	largeFile  = 20_000_000
	largeFiles = 100      // of largeFile: 2 GB
	mostMemory = 64 << 20 // bytes above a mount of next to nothing
)

// TestMemory: a layer of 2 GB is streamed in the memory that any layer takes.
func TestMemory(t *testing.T) {
	layout := largeImage(t)
	reg := testkit.NewRegistry(t)
	reg.Push(t, layout, "latest", "plain/large")
	reg.Publish(t, "plain/small", "latest", testkit.Encode(t, testkit.Gzip, files(0, 1)...))
	idle := peakOf(t, testkit.NewPeel(t), reg.Ref("plain/small", "latest"))
	start := time.Now()
	p := testkit.NewPeel(t)
	peak := peakOf(t, p, reg.Ref("plain/large", "latest"))
	t.Logf("peak %d MiB, %d MiB above that of a small image, in %v", peak>>20, (peak-idle)>>20, time.Since(start).Round(time.Millisecond))
	if peak-idle > mostMemory {
		t.Errorf("peak memory %d bytes above idle, at most %d", peak-idle, mostMemory)
	}
	last := fmt.Sprint("part-", largeFiles-1)
	if err := samePart(filepath.Join(p.Mounts()[0], last), largeFiles-1); err != nil {
		t.Error(err)
	}
}

// peakOf mounts ref and returns the largest sizes that the command and the
// server had, together.
func peakOf(t *testing.T, p *testkit.Peel, ref string) int64 {
	t.Helper()
	cmd := p.Command(t.Context(), "mount", ref, p.Dir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the command
	var client int64
	p.Until(time.Minute, func() bool {
		// It may have ended; what was seen until then is its peak.
		if n, err := testkit.PeakMemory(cmd.Process.Pid); err == nil {
			client = n
		}
		return len(ended) > 0
	})
	if err := <-ended; err != nil {
		t.Fatalf("mounting %s: %v", ref, err)
	}
	server, err := testkit.PeakMemory(p.PS()[0].ServerPID)
	if err != nil || client == 0 {
		t.Fatalf("the command's peak is %d (%v)", client, err)
	}
	return server + client
}

// largeImage is one layer of gzip, 2 GB of tar, two fifths of that compressed.
func largeImage(t *testing.T) string {
	t.Helper()
	recipe := fmt.Sprint("large 2 ", largeFile, largeFiles)
	return testkit.Kept(t, "large", recipe, func(_ context.Context, l *testkit.Layout) error {
		layer, err := largeLayer()
		if err != nil {
			return err
		}
		d, err := l.Image(layer)
		if err != nil {
			return err
		}
		return l.Tag("latest", d)
	})
}

func largeLayer() (testkit.Layer, error) {
	var blob bytes.Buffer
	blob.Grow(largeFile * largeFiles / 2)
	diff := sha256.New()
	z, err := gzip.NewWriterLevel(&blob, gzip.BestSpeed)
	if err != nil {
		return testkit.Layer{}, err
	}
	if err := errors.Join(writeParts(io.MultiWriter(z, diff)), z.Close()); err != nil {
		return testkit.Layer{}, err
	}
	l := layerOf(ocispec.MediaTypeImageLayerGzip, blob.Bytes(), nil)
	l.DiffID = digest.NewDigest(digest.SHA256, diff)
	return l, nil
}

func writeParts(to io.Writer) error {
	w := bufio.NewWriterSize(to, 1<<20)
	tw := tar.NewWriter(w)
	for i := range largeFiles {
		h := testkit.File("part-"+strconv.Itoa(i), nil).Header
		h.Size = largeFile
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := tw.Write(part(i)); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), w.Flush())
}

// part is the content of a file of the large layer: noise, and repetition of
// it that a window of DEFLATE reaches.
func part(i int) []byte {
	b := testkit.Noise(uint64(i), largeFile)
	const run, noise, period = 4096, 2, 5 // bytes; runs
	for n := range len(b) / run {
		if n%period >= noise {
			copy(b[n*run:(n+1)*run], b[(n-noise)*run:])
		}
	}
	return b
}

func samePart(name string, i int) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	got, want := sha256.New(), sha256.Sum256(part(i))
	_, err = io.Copy(got, f)
	if s := sum(got); err == nil && s != want {
		err = fmt.Errorf("%s has digest %x, want %x", name, s, want)
	}
	return errors.Join(err, f.Close())
}

func sum(h hash.Hash) [sha256.Size]byte { return [sha256.Size]byte(h.Sum(nil)) }
