package zstdseek

import (
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// maxFuzzed is the most output that fuzzing looks at, in bytes.
const maxFuzzed = 8 << 20

// FuzzReader reads what the library reads, and each stretch decodes alone.
func FuzzReader(f *testing.F) {
	data := mixed(1, 8<<10, 1<<10)
	f.Add(pack(f, data, zstd.WithWindowSize(1<<10)), int64(1), 2000)
	f.Add(append(pack(f, data), pack(f, noise(1, 5000), zstd.WithWindowSize(1<<10))...), int64(1000), maxBlock)
	f.Add(append(skippable(3), appendHeader(nil, 1<<10)...), int64(0), 1)
	f.Fuzz(func(t *testing.T, stream []byte, least int64, buf int) {
		d, err := zstd.NewReader(bytes.NewReader(stream), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeBuffersBelow(0))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		want, err := io.ReadAll(io.LimitReader(d, maxFuzzed))
		if len(want) == maxFuzzed {
			return // it is very long
		}
		buf = 1 + int(uint(buf)%(2*maxBlock))
		if err == nil {
			verify(t, stream, want, least, buf)
			return
		}
		z, err := NewReader(bytes.NewReader(stream), least)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		got, _, err := read(z, buf)
		if err == nil || !bytes.HasPrefix(want, got) {
			t.Fatalf("%d bytes and error %v, the library had %d", len(got), err, len(want))
		}
	})
}

// FuzzDecode decodes hostile bytes without touching what is behind dst.
func FuzzDecode(f *testing.F) {
	data := noise(1, 4000)
	stream := pack(f, data, zstd.WithWindowSize(1<<10))
	f.Add(stream, len(data), uint32(0))
	f.Add(stream[6:], len(data), uint32(1<<10))
	f.Add(stream[6:2000], 0, uint32(1<<31))
	f.Fuzz(func(t *testing.T, src []byte, n int, window uint32) {
		d, err := NewDecoder()
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		n = int(uint(n) % (1 << 20))
		dst := make([]byte, n+64)
		if err := d.Decode(dst[:n], src, Place{Window: window}); err == nil && n > 0 && len(src) == 0 {
			t.Fatalf("%d bytes from nothing", n)
		}
		if !bytes.Equal(dst[n:], make([]byte, 64)) {
			t.Fatal("it wrote behind the end")
		}
	})
}
