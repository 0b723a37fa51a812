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
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
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
			b.Fatal("gzip: ", err)
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

// busy is the processor time of this thread, which other work on the machine
// disturbs less than the clock.
func busy(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// drain reads to the end and returns the processor time it took.
func drain(b *testing.B, r io.Reader, buf []byte) time.Duration {
	b.Helper()
	start := busy(b)
	for {
		_, err := r.Read(buf)
		if errors.Is(err, io.EOF) {
			return busy(b) - start
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
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var ours, theirs, standard time.Duration
			z := NewReader(nil)
			for b.Loop() {
				z.Reset(bytes.NewReader(blob))
				ours += drain(b, z, buf)
				k, err := gzip.NewReader(bytes.NewReader(blob))
				if err != nil {
					b.Fatal(err)
				}
				theirs += drain(b, k, buf)
				s, err := stdgzip.NewReader(bytes.NewReader(blob))
				if err != nil {
					b.Fatal(err)
				}
				standard += drain(b, s, buf)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(theirs)/float64(ours), "x-klauspost")
			b.ReportMetric(float64(standard)/float64(ours), "x-standard")
			b.ReportMetric(float64(int64(b.N)*int64(len(blob)))/ours.Seconds()/1e6, "MB-in/s")
		})
	}
}

// BenchmarkPlaces measures what places cost by the size of spans, which is least
// output between two places: their number, their packed windows in bytes and
// per cent of the blob, and how much longer reading takes than without them, in
// per cent.
func BenchmarkPlaces(b *testing.B) {
	buf := make([]byte, 128<<10)
	for name, blob := range layers(b) {
		for _, span := range []int64{512 << 10, 1 << 20, 2 << 20, 4 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, span>>10), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				var with, without time.Duration
				var places, packed int
				z, p := NewReader(nil), new(Packer)
				for b.Loop() {
					z.Reset(bytes.NewReader(blob))
					without += drain(b, z, buf)
					start := busy(b)
					places, packed = pack(b, z, p, blob, span)
					with += busy(b) - start
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
		if end := errors.Is(err, io.EOF); end || ok && at.Out >= next {
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
