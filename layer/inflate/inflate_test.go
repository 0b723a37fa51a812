package inflate

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestRead(t *testing.T) {
	t.Parallel()
	for _, s := range streams(t, 300<<10) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			std, err := gzip.NewReader(bytes.NewReader(s.blob))
			if err != nil {
				t.Fatal(err)
			}
			if want, err := io.ReadAll(std); err != nil || !bytes.Equal(want, s.data) {
				t.Fatalf("compress/gzip reads %d bytes, %v: the test is wrong", len(want), err)
			}
			z := NewReader(nil)
			for name, r := range map[string]io.Reader{
				"whole":           bytes.NewReader(s.blob),
				"byte by byte":    iotest.OneByteReader(bytes.NewReader(s.blob)),
				"halves":          iotest.HalfReader(bytes.NewReader(s.blob)),
				"EOF with data":   iotest.DataErrReader(bytes.NewReader(s.blob)),
				"sevens, nothing": &dribble{bytes.NewReader(s.blob), 0},
			} {
				z.Reset(r)
				got, err := readAll(z, 1000)
				if err != nil || !bytes.Equal(got, s.data) {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(s.data))
				}
			}
		})
	}
}

// dribble returns seven bytes, and nothing every other time.
type dribble struct {
	r io.Reader
	n int
}

func (d *dribble) Read(p []byte) (int, error) {
	d.n++
	if d.n%2 == 0 {
		return 0, nil
	}
	return d.r.Read(p[:min(7, len(p))])
}

// visit is a place and what Window says there.
type visit struct {
	at     Place
	window []byte
}

// visits reads a stream and returns its places.
func visits(tb testing.TB, s stream) []visit {
	tb.Helper()
	z := NewReader(bytes.NewReader(s.blob))
	var list []visit
	buf := make([]byte, 1<<20)
	var out []byte
	for {
		if at, ok := z.Boundary(); ok {
			if at.Out != int64(len(out)) {
				tb.Fatalf("place %+v after %d bytes", at, len(out))
			}
			window := z.Window(nil)
			if !bytes.HasSuffix(out, window) {
				tb.Fatalf("place %+v: the window is not the output before it", at)
			}
			list = append(list, visit{at, window})
		}
		n, err := z.Read(buf)
		out = append(out, buf[:n]...)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func TestResumeEverywhere(t *testing.T) {
	t.Parallel()
	for _, s := range streams(t, 130<<10) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			z, p := NewReader(nil), new(Packer)
			for i, v := range visits(t, s) {
				rest := func() io.Reader { return bytes.NewReader(s.blob[v.at.Bit/8:]) }
				want := s.data[v.at.Out:]

				z.Resume(rest(), v.at, v.window)
				if at, ok := z.Boundary(); !ok || at != v.at {
					t.Fatalf("place %d: resumed at %+v, %v; want %+v", i, at, ok, v.at)
				}
				z.Mark()
				got, err := readAll(z, 10000)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("place %d, %+v, full window: %d bytes, %v; want %d", i, v.at, len(got), err, len(want))
				}

				marked := z.Marked(nil)
				if len(marked) > len(v.window) {
					t.Fatalf("place %d: marked %d bytes of %d", i, len(marked), len(v.window))
				}
				packed := p.Pack(nil, marked)
				unpacked, err := Unpack(nil, packed)
				if err != nil || !bytes.Equal(unpacked, marked) {
					t.Fatalf("place %d: packing loses something: %v", i, err)
				}
				z.Resume(rest(), v.at, unpacked)
				got, err = readAll(z, 10000)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("place %d, %+v, marked window: %d bytes, %v; want %d", i, v.at, len(got), err, len(want))
				}
				if len(marked) == 0 {
					continue
				}
				// Its first byte is referred to, so that it takes all of them.
				z.Resume(rest(), v.at, marked[1:])
				if got, err = readAll(z, 10000); !errors.Is(err, ErrFormat) {
					t.Fatalf("place %d, window a byte too short: %d bytes, %v; want %v", i, len(got), err, ErrFormat)
				}
			}
		})
	}
}
