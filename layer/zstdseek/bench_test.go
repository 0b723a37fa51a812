package zstdseek

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// BenchmarkReader compares a Reader with the library alone, turn about, on
// one-frame streams. The ratio is of their speeds, without goroutines and, as
// "pool", with those that the library starts by itself.
func BenchmarkReader(b *testing.B) {
	tar, err := exec.CommandContext(b.Context(), "tar", "-C", "/usr/share", "-cf", "-", "doc", "perl", "zoneinfo").Output()
	if len(tar) == 0 {
		b.Fatal("no tar: ", err)
	}
	for _, bc := range []struct {
		name string
		data []byte
	}{
		{"tar", tar},
		{"noise", noise(1, 64<<20)},
		{"mixed", mixed(1, 64<<20, 3<<20)},
	} {
		stream := pack(b, bc.data)
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(int64(len(bc.data)))
			var ours, single, pool time.Duration
			places := 0
			for b.Loop() {
				ours += timed(b, func() (io.Reader, func()) {
					z, err := NewReader(bytes.NewReader(stream), 1<<20)
					if err != nil {
						b.Fatal(err)
					}
					return z, func() { places = len(z.Places()); z.Close() }
				})
				single += timed(b, library(b, stream, zstd.WithDecoderConcurrency(1)))
				pool += timed(b, library(b, stream))
			}
			mb := float64(len(bc.data)) * float64(b.N) / 1e6
			b.ReportMetric(mb/ours.Seconds(), "our-MB/s")
			b.ReportMetric(single.Seconds()/ours.Seconds(), "ratio")
			b.ReportMetric(pool.Seconds()/ours.Seconds(), "ratio-pool")
			b.ReportMetric(float64(places), "places")
		})
	}
}

func library(b *testing.B, stream []byte, o ...zstd.DOption) func() (io.Reader, func()) {
	return func() (io.Reader, func()) {
		d, err := zstd.NewReader(bytes.NewReader(stream), o...)
		if err != nil {
			b.Fatal(err)
		}
		return d, d.Close
	}
}

func timed(b *testing.B, open func() (io.Reader, func())) time.Duration {
	start := time.Now()
	r, done := open()
	buf := make([]byte, 512<<10)
	for {
		if _, err := r.Read(buf); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			b.Fatal(err)
		}
	}
	done()
	return time.Since(start)
}
