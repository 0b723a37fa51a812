package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"testing"
)

// mostFuzzed bounds the output of a fuzzed stream, in bytes.
const mostFuzzed = 8 << 20

// FuzzRead compares with compress/gzip: both accept, and the same bytes, or
// neither does.
func FuzzRead(f *testing.F) {
	for _, s := range streams(f, 2000) {
		f.Add(s.blob)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		want, stdErr := standard(blob)
		got, err := bounded(NewReader(bytes.NewReader(blob)))
		slow, slowErr := bounded(NewReader(&dribble{bytes.NewReader(blob), 0}))
		if (err == nil) != (stdErr == nil) || (err == nil) != (slowErr == nil) {
			t.Fatalf("%v, slowly %v, compress/gzip %v", err, slowErr, stdErr)
		}
		if !bytes.Equal(got, slow) {
			t.Fatalf("%d bytes, slowly %d", len(got), len(slow))
		}
		// In a broken stream compress/gzip may stop a few symbols earlier.
		if err == nil && !bytes.Equal(got, want) || err != nil && !bytes.HasPrefix(got, want) {
			t.Fatalf("%d bytes, compress/gzip %d", len(got), len(want))
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	})
}

func standard(blob []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, mostFuzzed))
}

func bounded(z *Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(z, mostFuzzed)) }

// FuzzDeflate compares with compress/flate what a checksum would otherwise hide:
// the input is bare DEFLATE, put into a member whose trailer is right.
func FuzzDeflate(f *testing.F) {
	for _, s := range streams(f, 2000) {
		if head := len(member(nil, nil)) - 8; s.blob[3] == 0 {
			f.Add(s.blob[10 : len(s.blob)-8])
		} else {
			f.Add(s.blob[head : len(s.blob)-8])
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		src := bytes.NewReader(raw)
		want, stdErr := io.ReadAll(io.LimitReader(flate.NewReader(src), mostFuzzed))
		if len(want) == mostFuzzed {
			return
		}
		blob := member(raw[:len(raw)-src.Len()], want)
		got, err := bounded(NewReader(bytes.NewReader(blob)))
		if stdErr == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
		if stdErr != nil && (err == nil || !bytes.HasPrefix(got, want) && !bytes.HasPrefix(want, got)) {
			t.Fatalf("%d bytes, %v; want %d, %v", len(got), err, len(want), stdErr)
		}
	})
}

// FuzzResume resumes a stream where it says it can be, and at a place that is
// made up, with a window that may be too short.
func FuzzResume(f *testing.F) {
	for _, s := range streams(f, 2000) {
		f.Add(s.blob, uint16(50), uint16(100))
	}
	f.Fuzz(func(t *testing.T, blob []byte, bit, short uint16) {
		z := NewReader(bytes.NewReader(blob))
		var places []visit
		var whole []byte
		buf := make([]byte, 10000)
		var err error
		for err == nil && len(whole) < mostFuzzed {
			if at, ok := z.Boundary(); ok && len(places) < 20 {
				places = append(places, visit{at, z.Window(nil)})
			}
			var n int
			n, err = z.Read(buf)
			whole = append(whole, buf[:n]...)
		}
		if err == nil {
			return
		}
		for _, p := range places {
			want := whole[p.at.Out:]
			z.Resume(bytes.NewReader(blob[p.at.Bit/8:]), p.at, p.window)
			z.Mark()
			got, _ := bounded(z)
			if !bytes.Equal(got, want) {
				t.Fatalf("%+v: %d bytes; want %d", p.at, len(got), len(want))
			}
			window := z.Marked(nil)
			z.Resume(bytes.NewReader(blob[p.at.Bit/8:]), p.at, window)
			if got, _ = bounded(z); !bytes.Equal(got, want) {
				t.Fatalf("%+v, marked: %d bytes; want %d", p.at, len(got), len(want))
			}
			// A window too short ends the output early, and changes none.
			window = window[min(int(short), len(window)):]
			z.Resume(bytes.NewReader(blob[p.at.Bit/8:]), p.at, window)
			if got, _ = bounded(z); !bytes.HasPrefix(want, got) {
				t.Fatalf("%+v, short window: %d other bytes", p.at, len(got))
			}
		}
		at := Place{Bit: int64(bit) % int64(8*len(blob)+1), Out: 12345}
		z.Resume(bytes.NewReader(blob[at.Bit/8:]), at, sample(8, int(short)))
		_, err = bounded(z)
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	})
}

// FuzzUnpack unpacks nothing to more than a window.
func FuzzUnpack(f *testing.F) {
	var p Packer
	f.Add(p.Pack(nil, sample(9, 1000)))
	f.Add(p.Pack(nil, make([]byte, 1000)))
	f.Fuzz(func(t *testing.T, packed []byte) {
		window, err := Unpack(nil, packed)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if len(window) > WindowSize {
			t.Fatalf("%d bytes", len(window))
		}
		again, err := Unpack(nil, new(Packer).Pack(nil, window))
		if err != nil || !bytes.Equal(again, window) {
			t.Fatalf("packed again: %v", err)
		}
	})
}
