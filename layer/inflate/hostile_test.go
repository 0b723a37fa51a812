package inflate

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, s := range streams(t, 3000) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			z := NewReader(nil)
			for n := range int64(len(s.blob)) {
				z.Reset(bytes.NewReader(s.blob[:n]))
				got, err := readAll(z, 100)
				// Behind a member a stream may end, as compress/gzip says.
				_, stdErr := standard(s.blob[:n])
				switch {
				case stdErr == nil && err != nil:
					t.Fatalf("cut to %d bytes, behind a member: %v", n, err)
				case stdErr != nil && !errors.Is(err, io.ErrUnexpectedEOF):
					t.Fatalf("cut to %d bytes: %v; want %v", n, err, io.ErrUnexpectedEOF)
				case !bytes.HasPrefix(s.data, got):
					t.Fatalf("cut to %d bytes: wrong bytes", n)
				}
				if _, ok := z.Boundary(); ok {
					t.Fatalf("cut to %d bytes: a place at the end", n)
				}
			}
		})
	}
}

// A place must be reported once its bits are there, whatever comes after.
func TestBoundaryNeedsNoMore(t *testing.T) {
	t.Parallel()
	gone := errors.New("the line is cut")
	for _, s := range streams(t, 100<<10) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			buf := make([]byte, 1<<20)
			for i, v := range visits(t, s) {
				n := (v.at.Bit + 7) / 8
				if v.at.Member && n > 0 {
					n++ // that there is another member
				}
				z := NewReader(io.MultiReader(bytes.NewReader(s.blob[:n]), iotest.ErrReader(gone)))
				at, ok := z.Boundary()
				for !ok || at.Bit < v.at.Bit {
					if _, err := z.Read(buf); err != nil {
						t.Fatalf("place %d, %+v: %v at %+v", i, v.at, err, at)
					}
					at, ok = z.Boundary()
				}
				if at != v.at {
					t.Fatalf("place %d: %+v; want %+v", i, at, v.at)
				}
				if _, err := z.Read(buf); !errors.Is(err, gone) {
					t.Fatalf("place %d: %v; want %v", i, err, gone)
				}
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	data := sample(3, 5000)
	good := compress(t, data, 6, 0)
	raw := func(w *bitWriter) []byte { return member(w.bytes(), nil) }
	block := func(bits, n uint64) *bitWriter { return new(bitWriter).bits(bits, uint(n)) }
	changed := func(at int, b byte) []byte {
		blob := bytes.Clone(good)
		blob[(at+len(blob))%len(blob)] ^= b
		return blob
	}
	for _, test := range []struct {
		name string
		blob []byte
		want string
	}{
		{"no gzip", []byte("ustar, perhaps"), "header"},
		{"another method", changed(2, 1), "header"},
		{"wrong checksum", changed(-8, 1), "checksum"},
		{"wrong length", changed(-1, 1), "length"},
		{"garbage behind", append(bytes.Clone(good), "garbage garbage"...), "header"},
		{"zeros behind", append(bytes.Clone(good), make([]byte, 512)...), "header"},
		{"long name", append([]byte{0x1f, 0x8b, 8, flagName, 0, 0, 0, 0, 0, 0}, strings.Repeat("n", 600)...), "too long"},
		{"wrong checksum of the header", append([]byte{0x1f, 0x8b, 8, flagHeaderCRC, 0, 0, 0, 0, 0, 0, 1, 1}, good...), "checksum of the header"},
		{"type of block", raw(block(0b111, 3)), "type"},
		{"stored length", member([]byte{1, 1, 0, 0, 0}, nil), "stored"},
		{"distance before the beginning", raw(block(0b011, 3).fixed('a').fixed(257).bits(uint64(reverse(1, 5)), 5)), "distance"},
		{"distance symbol 30", raw(block(0b011, 3).fixed('a').fixed(257).bits(uint64(reverse(30, 5)), 5).bits(0, 60)), "code"},
		{"length symbol 286", raw(block(0b011, 3).fixed('a').fixed(286)), "code"},
		{"too many lengths", raw(block(0b101, 3).bits(30, 5).bits(0, 5).bits(0, 4)), "number"},
		{"too many distances", raw(block(0b101, 3).bits(0, 5).bits(30, 5).bits(0, 4)), "number"},
		{"too many codes", raw(block(0b101, 3).bits(0, 10).bits(15, 4).bits(1<<57/7, 57)), "code of lengths"},
		{"nothing to repeat", raw(block(0b101, 3).bits(0, 10).bits(0, 4).bits(0o0001, 12).bits(0, 60)), "repeat"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			std, err := gzip.NewReader(bytes.NewReader(test.blob))
			if err == nil {
				_, err = io.ReadAll(std)
			}
			if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("compress/gzip says %v: the test is wrong", err)
			}
			_, err = readAll(NewReader(bytes.NewReader(test.blob)), 100)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %v about %q", err, ErrFormat, test.want)
			}
		})
	}
}

// A member must not see the output of the one before.
func TestMembersAreApart(t *testing.T) {
	t.Parallel()
	blob := compress(t, []byte("before"), 6, 0)
	blob = append(blob, member(new(bitWriter).bits(0b011, 3).fixed('a').fixed(257).bits(uint64(reverse(1, 5)), 5).bits(0, 20).bytes(), nil)...)
	got, err := readAll(NewReader(bytes.NewReader(blob)), 100)
	if string(got) != "beforea" || !errors.Is(err, ErrFormat) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSourceFails(t *testing.T) {
	t.Parallel()
	data := sample(4, 200<<10)
	blob := compress(t, data, 6, 0)
	gone := errors.New("the line is cut")
	got, err := readAll(NewReader(io.MultiReader(bytes.NewReader(blob[:len(blob)/2]), iotest.ErrReader(gone))), 5000)
	if !errors.Is(err, gone) || errors.Is(err, ErrFormat) {
		t.Errorf("%v; want %v", err, gone)
	}
	if len(got) < len(data)/4 || !bytes.HasPrefix(data, got) {
		t.Errorf("%d bytes before the error", len(got))
	}
	if _, err := readAll(NewReader(idle{}), 10); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("%v; want %v", err, io.ErrNoProgress)
	}
}

// idle is a source that never has anything.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestReadAllocatesNothing(t *testing.T) {
	data := sample(5, 400<<10)
	src := bytes.NewReader(nil)
	z := NewReader(src)
	buf := make([]byte, 32<<10)
	blob := append(compress(t, data, 6, 10000), compress(t, data, 9, 0)...)
	allocs := testing.AllocsPerRun(5, func() {
		src.Reset(blob)
		z.Reset(src)
		for {
			if at, ok := z.Boundary(); ok && at.Out > 0 {
				z.Mark()
			}
			if _, err := z.Read(buf); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestPack(t *testing.T) {
	t.Parallel()
	holes := sample(6, WindowSize)
	for i := 0; i+700 < len(holes); i += 700 {
		clear(holes[i : i+i%690])
	}
	alternate := bytes.Repeat([]byte{0, 0, 0, 0, 1}, WindowSize/5)
	var p Packer
	for _, test := range []struct {
		name   string
		window []byte
		most   int
	}{
		{"empty", nil, 0},
		{"a byte", []byte{7}, 16},
		{"a zero", []byte{0}, 16},
		{"zeros", make([]byte, WindowSize), 24},
		{"holes", holes, WindowSize},
		{"most runs", alternate, 200},
		{"zero at the end", []byte("abc\x00\x00\x00\x00\x00\x00"), 24},
	} {
		packed := p.Pack([]byte("before"), test.window)
		if len(packed) > len("before")+test.most {
			t.Errorf("%s: packed to %d bytes", test.name, len(packed))
		}
		got, err := Unpack([]byte("this"), packed[len("before"):])
		if err != nil || string(got) != "this"+string(test.window) {
			t.Errorf("%s: %d bytes, %v; want %d", test.name, len(got), err, len(test.window)+4)
		}
	}
}

func TestUnpackMalformed(t *testing.T) {
	t.Parallel()
	var p Packer
	packed := p.Pack(nil, append(sample(7, 500), make([]byte, 100)...))
	deflated := func(runs, other []byte) []byte {
		p.out.Reset()
		p.deflate(runs)
		p.deflate(other)
		return bytes.Clone(p.out.Bytes())
	}
	for name, in := range map[string][]byte{
		"garbage":            []byte("garbage"),
		"cut":                packed[:len(packed)-1],
		"bytes behind":       append(bytes.Clone(packed), 0),
		"too long":           p.Pack(nil, make([]byte, WindowSize+1)),
		"a bomb":             p.Pack(nil, bytes.Repeat([]byte("ab"), 1<<20)),
		"a bomb of runs":     deflated(make([]byte, 1<<20), nil),
		"a run cut off":      deflated([]byte{0x80}, nil),
		"half a pair":        deflated([]byte{3}, nil),
		"a run that wraps":   deflated([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, []byte("a")),
		"more than the runs": deflated([]byte{1, 1}, []byte("ab")),
		"less than the runs": deflated([]byte{1, 3}, []byte("ab")),
	} {
		if got, err := Unpack([]byte("this"), in); !errors.Is(err, ErrFormat) || string(got) != "this" {
			t.Errorf("%s: %d bytes, %v; want %v", name, len(got), err, ErrFormat)
		}
	}
	for n := 1; n < len(packed); n++ {
		if _, err := Unpack(nil, packed[:n]); !errors.Is(err, ErrFormat) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}
