package inflate

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// layerTar packs files of this machine as a layer would, up to size bytes.
func layerTar(tb testing.TB, root string, size int) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read is no matter here
		}
		data, err := os.ReadFile(path)
		if err != nil || len(data) > 16<<20 {
			return nil
		}
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		if buf.Len() > size {
			return filepath.SkipAll
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(tb testing.TB, data []byte, level int) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&buf, level)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func BenchmarkQuick(b *testing.B) {
	data := layerTar(b, "/usr/lib", 60<<20)
	blob := gzipped(b, data, 6)
	buf := make([]byte, 64<<10)
	b.Run("check", func(b *testing.B) {
		got, err := io.ReadAll(NewReader(bytes.NewReader(blob)))
		if err != nil || !bytes.Equal(got, data) {
			b.Fatal(len(got), len(data), err)
		}
	})
	for range 3 {
		b.Run("klauspost", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for range b.N {
				z, err := gzip.NewReader(bytes.NewReader(blob))
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = z.Read(buf)
				}
			}
		})
		b.Run("peel", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			z := NewReader(nil)
			for range b.N {
				z.Reset(bytes.NewReader(blob))
				var err error
				for err == nil {
					_, err = z.Read(buf)
				}
				if err != io.EOF {
					b.Fatal(err)
				}
			}
		})
	}
}
