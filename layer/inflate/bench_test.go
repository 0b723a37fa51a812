package inflate

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// layers returns blobs of real files of this machine, as layers have them, by
// name: packed by gzip -6, and by Go's library as containerd and buildkit do.
func layers(b *testing.B) map[string][]byte {
	b.Helper()
	blobs := make(map[string][]byte)
	for _, root := range []string{"/usr/lib", "/usr/share"} {
		data := layerTar(b, root, 96<<20)
		blobs["go "+root] = compress(b, data, stdgzip.DefaultCompression, 0)
		cmd := exec.CommandContext(b.Context(), "gzip", "-6")
		cmd.Stdin = bytes.NewReader(data)
		blob, err := cmd.Output()
		if err != nil {
			b.Skip("gzip: ", err)
		}
		blobs["gzip "+root] = blob
	}
	return blobs
}

// layerTar packs the files below root as a layer would, up to some bytes.
func layerTar(b *testing.B, root string, size int) []byte {
	b.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read is no matter here
		}
		data, err := os.ReadFile(path)
		if err != nil || len(data) > size/4 {
			return nil
		}
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil || buf.Len() < size {
			return err
		}
		return filepath.SkipAll
	})
	if err = errors.Join(err, w.Close()); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

// drain reads to the end and returns the bytes and how long it took.
func drain(b *testing.B, r io.Reader, buf []byte) (int64, time.Duration) {
	b.Helper()
	var n int64
	start := time.Now()
	for {
		k, err := r.Read(buf)
		n += int64(k)
		if err == io.EOF {
			return n, time.Since(start)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead measures reading by turns with klauspost/compress and with
// compress/gzip, and how many times as fast it is.
func BenchmarkRead(b *testing.B) {
	buf := make([]byte, 128<<10)
	for name, blob := range layers(b) {
		b.Run(name, func(b *testing.B) {
			var ours, theirs, standard time.Duration
			z := NewReader(nil)
			for b.Loop() {
				z.Reset(bytes.NewReader(blob))
				n, d := drain(b, z, buf)
				ours += d
				k, err := gzip.NewReader(bytes.NewReader(blob))
				if err != nil {
					b.Fatal(err)
				}
				_, d = drain(b, k, buf)
				theirs += d
				s, err := stdgzip.NewReader(bytes.NewReader(blob))
				if err != nil {
					b.Fatal(err)
				}
				_, d = drain(b, s, buf)
				standard += d
				b.SetBytes(n)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(theirs)/float64(ours), "x-klauspost")
			b.ReportMetric(float64(standard)/float64(ours), "x-standard")
			b.ReportMetric(float64(ours.Milliseconds())/float64(b.N), "ms/layer")
		})
	}
}

// BenchmarkPlaces measures what places cost by the size of spans, which is least
// output between two places: their number, their packed windows in bytes and
// per cent of the blob, and how much longer reading takes than without them.
func BenchmarkPlaces(b *testing.B) {
	buf := make([]byte, 128<<10)
	for name, blob := range layers(b) {
		for _, span := range []int64{512 << 10, 1 << 20, 2 << 20, 4 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, span>>10), func(b *testing.B) {
				var with, without time.Duration
				var places, packed int
				z, p := NewReader(nil), new(Packer)
				for b.Loop() {
					z.Reset(bytes.NewReader(blob))
					_, d := drain(b, z, buf)
					without += d
					start := time.Now()
					places, packed = pack(b, z, p, blob, span)
					with += time.Since(start)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(places), "places")
				b.ReportMetric(float64(packed), "windowbytes")
				b.ReportMetric(100*float64(packed)/float64(len(blob)), "%blob")
				b.ReportMetric(100*float64(with-without)/float64(without), "%time")
			})
		}
	}
}

// pack reads a blob with a place after each span bytes of output, and returns
// the number of places and the size of their windows.
func pack(b *testing.B, z *Reader, p *Packer, blob []byte, span int64) (places, packed int) {
	b.Helper()
	buf := make([]byte, 128<<10)
	var window []byte
	next := span
	z.Reset(bytes.NewReader(blob))
	for {
		_, err := z.Read(buf)
		at, ok := z.Boundary()
		if end := err == io.EOF; end || ok && at.Out >= next {
			window = p.Pack(window[:0], z.Marked(nil))
			packed += len(window)
			if end {
				return places, packed
			}
			z.Mark()
			places++
			next = at.Out + span
		} else if err != nil {
			b.Fatal(err)
		}
	}
}
