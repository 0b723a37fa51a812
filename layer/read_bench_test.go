package layer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkReadAtWarm128K(b *testing.B) {
	made := bottle(b, "estargz", 8<<20)
	l := made.open(b, &wire{}, newShelf(made.x), Options{})
	p := make([]byte, 8<<20)
	if _, err := l.ReadAt(b.Context(), p, 0); err != nil {
		b.Fatal(err)
	}
	p = p[:128<<10]
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	addr := int64(0)
	for b.Loop() {
		if _, err := l.ReadAt(b.Context(), p, addr); err != nil {
			b.Fatal(err)
		}
		addr = (addr + int64(len(p))) % (8 << 20)
	}
}

// BenchmarkReadAtCold reads a layer from end to end in pieces of 128 KiB, as
// the kernel would, from an empty store.
func BenchmarkReadAtCold(b *testing.B) {
	for _, form := range forms() {
		b.Run(form, func(b *testing.B) {
			const size = 8 << 20
			made := bottle(b, form, size)
			var requests, sent int64
			p := make([]byte, 128<<10)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				w := &wire{blob: made.blob}
				l := New(made.x, w, newShelf(made.x), Options{})
				for addr := int64(0); addr < size; addr += int64(len(p)) {
					if _, err := l.ReadAt(b.Context(), p, addr); err != nil {
						b.Fatal(err)
					}
				}
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
				requests += w.requests.Load()
				sent += w.bytes.Load()
			}
			b.ReportMetric(float64(requests)/float64(b.N), "requests/op")
			b.ReportMetric(float64(sent)/float64(b.N), "wirebytes/op")
		})
	}
}

// BenchmarkReadInPlace compares warm reads of a layer that lies in a file with
// those of the file.
func BenchmarkReadInPlace(b *testing.B) {
	const size = 64 << 20
	made := indexed(b, noise(size, 1), "f")
	path := filepath.Join(b.TempDir(), "blob")
	if err := os.WriteFile(path, made.blob, 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	s, _ := InPlace(made.x, f)
	l := made.open(b, &wire{}, s, Options{})
	if err := l.Fill(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int64{4 << 10, 1 << 20} {
		p := make([]byte, n)
		for _, way := range []struct {
			name string
			read func(addr int64) (int, error)
		}{
			{"file", func(addr int64) (int, error) { return f.ReadAt(p, addr) }},
			{"layer", func(addr int64) (int, error) { return l.ReadAt(b.Context(), p, addr) }},
		} {
			b.Run(fmt.Sprintf("%s/%dK", way.name, n>>10), func(b *testing.B) {
				b.SetBytes(n)
				b.ReportAllocs()
				addr := int64(0)
				for b.Loop() {
					if _, err := way.read(addr); err != nil {
						b.Fatal(err)
					}
					addr = (addr + 13*n) % size
				}
			})
		}
	}
}
