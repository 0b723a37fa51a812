package zstdseek

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// noise returns n bytes that do not compress.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// prose returns n bytes that compress as text does.
func prose(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "usr/share/doc/package-%d/%s %d root\n", r.IntN(300), strings.Repeat("x", r.IntN(9)), r.IntN(1e6))
	}
	return b.Bytes()[:n]
}

// mixed returns stretches of prose and noise in turns.
func mixed(seed uint64, n, stretch int) []byte {
	var b []byte
	for i := uint64(0); len(b) < n; i += 2 {
		b = append(b, prose(seed+i, stretch)...)
		b = append(b, noise(seed+i+1, stretch)...)
	}
	return b[:n]
}

func pack(tb testing.TB, data []byte, o ...zstd.EOption) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, append(o, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// command packs data with a program, one of those that make test installs.
func command(t *testing.T, data []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func skippable(n int) []byte {
	return append([]byte{0x5a, 0x2a, 0x4d, 0x18, byte(n), byte(n >> 8), 0, 0}, make([]byte, n)...)
}

// read reads a whole stream in pieces of n bytes, and returns the candidates.
func read(z *Reader, n int) (out []byte, seen []Place, err error) {
	p := make([]byte, n)
	for err == nil {
		n, err = z.Read(p)
		out = append(out, p[:n]...)
		if at, ok := z.Boundary(); ok && err == nil {
			seen = append(seen, at)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return out, seen, err
}

// verify reads a stream and checks that each stretch decodes alone.
func verify(tb testing.TB, stream, want []byte, least int64, buf int) []Place {
	tb.Helper()
	z, err := NewReader(bytes.NewReader(stream), least)
	if err != nil {
		tb.Fatal(err)
	}
	defer z.Close()
	got, seen, err := read(z, buf)
	if err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		tb.Fatalf("it read %d bytes that differ from the %d expected", len(got), len(want))
	}
	announced := map[Place]bool{{}: true}
	for i, at := range seen {
		if i > 0 && at.Out <= seen[i-1].Out {
			tb.Fatalf("candidate %+v after %+v", at, seen[i-1])
		}
		announced[at] = true
	}
	d, err := NewDecoder()
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	places := z.Places()
	if places[0] != (Place{}) {
		tb.Fatalf("the first place is %+v", places[0])
	}
	for i, at := range places {
		end := Place{In: int64(len(stream)), Out: int64(len(want))}
		if i+1 < len(places) {
			end = places[i+1]
		}
		if !announced[at] {
			tb.Errorf("place %+v was no candidate", at)
		}
		if end.Out <= at.Out && len(want) > 0 {
			tb.Fatalf("place %+v after %+v", end, at)
		}
		dst := make([]byte, end.Out-at.Out)
		if err := d.Decode(dst, stream[at.In:end.In], at); err != nil {
			tb.Fatalf("place %+v: %v", at, err)
		}
		if !bytes.Equal(dst, want[at.Out:end.Out]) {
			tb.Fatalf("place %+v: wrong bytes", at)
		}
	}
	return places
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	text, random, both := prose(1, 6*mib), noise(2, 6*mib), mixed(3, 24*mib, 3*mib)
	zeros := make([]byte, 6*mib)
	echo := bytes.Join([][]byte{text[:mib], random[:4*mib], text[:mib]}, nil)
	frames := func(data []byte, size int) (b []byte) {
		for len(data) > 0 {
			n := min(size, len(data))
			b = append(append(b, pack(t, data[:n])...), skippable(n%300)...)
			data = data[n:]
		}
		return b
	}
	empty := pack(t, nil, zstd.WithZeroFrames(true))
	for _, tc := range []struct {
		name        string
		data        []byte
		stream      func(t *testing.T) []byte
		least, most int // places
	}{
		{"empty", nil, func(*testing.T) []byte { return nil }, 1, 1},
		{"empty frame", nil, func(*testing.T) []byte { return empty }, 1, 1},
		{"level 1", text, func(t *testing.T) []byte { return command(t, text, "zstd", "-1") }, 1, 1},
		{"level 3", text, func(t *testing.T) []byte { return command(t, text, "zstd", "-3") }, 1, 1},
		{"level 19", text[:2*mib], func(t *testing.T) []byte { return command(t, text[:2*mib], "zstd", "-19") }, 1, 1},
		{"long", text, func(t *testing.T) []byte { return command(t, text, "zstd", "--long=27") }, 1, 1},
		{"two threads", text, func(t *testing.T) []byte { return command(t, text, "zstd", "-T2", "-B1MiB") }, 1, 1},
		{"no checksum", random, func(t *testing.T) []byte { return command(t, random, "zstd", "--no-check") }, 6, 6},
		{"raw", random, func(t *testing.T) []byte { return command(t, random, "zstd") }, 6, 6},
		{"repeated", zeros, func(t *testing.T) []byte { return command(t, zeros, "zstd") }, 1, 6},
		{"mixed", both, func(t *testing.T) []byte { return command(t, both, "zstd") }, 10, 24},
		{"text after noise refers to text before", echo, func(t *testing.T) []byte { return command(t, echo, "zstd", "--long=24") }, 1, 1},
		{"pzstd", both, func(t *testing.T) []byte { return command(t, both, "pzstd", "-p", "2", "-c", "-") }, 4, 30},
		{"frames", text, func(*testing.T) []byte { return frames(text, mib) }, 6, 6},
		{"small frames", text[:2*mib], func(*testing.T) []byte { return frames(text[:2*mib], 40<<10) }, 7, 8},
		{"frames of noise", random, func(*testing.T) []byte { return frames(random, 3*mib+99) }, 5, 7},
		{"empty frames between", random, func(*testing.T) []byte {
			return bytes.Join([][]byte{empty, pack(t, random[:3*mib]), empty, empty, pack(t, random[3*mib:]), empty, skippable(9)}, nil)
		}, 6, 6},
		{"skippable at both ends", text, func(*testing.T) []byte {
			return bytes.Join([][]byte{skippable(70), pack(t, text), skippable(0)}, nil)
		}, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			stream := tc.stream(t)
			for _, buf := range []int{maxBlock, 10_007} {
				places := verify(t, stream, tc.data, mib, buf)
				if len(places) < tc.least || len(places) > tc.most {
					t.Errorf("with buffers of %d bytes it has %d places, expected %d to %d", buf, len(places), tc.least, tc.most)
				}
			}
		})
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	data := mixed(4, 3<<20, 300<<10)
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
		for _, window := range []int{1 << 10, 64 << 10, 8 << 20} {
			for _, least := range []int64{1, 200 << 10, 1 << 30} {
				verify(t, pack(t, data, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window)), data, least, maxBlock)
			}
		}
	}
}

// TestWeirdBlocks has blocks without output where encoders leave none.
func TestWeirdBlocks(t *testing.T) {
	t.Parallel()
	data := noise(5, 100)
	raw := func(b []byte, last byte) []byte {
		n := len(b)<<3 | int(last)
		return append([]byte{byte(n), byte(n >> 8), byte(n >> 16)}, b...)
	}
	const empty, emptyRLE, emptyCompressed = "\x00\x00\x00", "\x02\x00\x00x", "\x14\x00\x00\x00\x00"
	begin := string(appendHeader(nil, 1<<10))
	block, last := string(raw(data, 0)), string(raw(data, 1))
	for _, tc := range []struct {
		name, stream string
		blocks       int
	}{
		{"empty block before the last", begin + block + block + empty + emptyLast + begin + last, 3},
		{"empty blocks all over", begin + empty + block + emptyRLE + emptyCompressed + block + empty + empty + emptyLast, 2},
		{"many empty blocks", begin + block + strings.Repeat(empty, 200_000) + last + begin + block + last, 4},
		{"empty frames", begin + emptyLast + begin + empty + emptyLast + begin + last + begin + empty + emptyLast, 1},
		{"last block empty and repeated", begin + block + "\x03\x00\x00x" + begin + block + emptyLast, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, least := range []int64{1, 150, 400} {
				verify(t, []byte(tc.stream), bytes.Repeat(data, tc.blocks), least, maxBlock)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, stream, says string }{
		{"no zstd", "\x1f\x8b\x08\x00\x00\x00\x00", "magic number"},
		{"window", "\x28\xb5\x2f\xfd\x00\x90" + emptyLast, "window of 268435456 bytes, at most 134217728"},
		{"content as window", "\x28\xb5\x2f\xfd\xa0\x01\x00\x00\x08" + emptyLast, "window of 134217729 bytes"},
		{"dictionary", "\x28\xb5\x2f\xfd\x21\x07\x00" + emptyLast, "dictionary 7"},
		{"reserved bit", "\x28\xb5\x2f\xfd\x08\x00" + emptyLast, "reserved bit"},
		{"reserved block", "\x28\xb5\x2f\xfd\x00\x00\x07\x00\x00", "reserved type"},
		{"long block", "\x28\xb5\x2f\xfd\x00\x58\x01\xff\xff", "block of"},
		{"length", "\x28\xb5\x2f\xfd\x20\x05" + emptyLast, "malformed"},
		{"checksum", "\x28\xb5\x2f\xfd\x04\x00" + emptyLast + "abcd", "malformed"},
		{"after a frame", "\x28\xb5\x2f\xfd\x00\x00" + emptyLast + "abcdefgh", "magic number"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			z, err := NewReader(strings.NewReader(tc.stream), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			out, _, err := read(z, maxBlock)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tc.says) || len(out) > 0 {
				t.Errorf("%d bytes, error %v", len(out), err)
			}
		})
	}
}

func TestCutShort(t *testing.T) {
	t.Parallel()
	data := append(noise(6, 700), prose(7, 2000)...)
	stream := append(skippable(5), pack(t, data, zstd.WithWindowSize(1<<10))...)
	for n := 1; n < len(stream); n++ {
		if n == 13 {
			continue // the end of the skippable frame
		}
		z, err := NewReader(iotest.OneByteReader(bytes.NewReader(stream[:n])), 1)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := read(z, 100)
		z.Close()
		if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(data, got) {
			t.Fatalf("cut to %d of %d bytes: %d bytes, error %v", n, len(stream), len(got), err)
		}
	}
}

func TestSourceFails(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	data := noise(8, 1<<20)
	stream := pack(t, data)
	for _, n := range []int64{0, 3, 200_000, int64(len(stream)) - 2} {
		z, err := NewReader(io.MultiReader(io.NewSectionReader(bytes.NewReader(stream), 0, n), iotest.ErrReader(gone)), 1)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := read(z, 4096)
		z.Close()
		if !errors.Is(err, gone) || !bytes.HasPrefix(data, got) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	data := noise(9, 300<<10)
	stream := pack(t, data)
	d, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, tc := range []struct {
		name string
		n    int
		src  []byte
		at   Place
	}{
		{"too long", len(data) - 1, stream, Place{}},
		{"too short", len(data) + 1, stream, Place{}},
		{"nothing", 1, nil, Place{}},
		{"cut short", len(data), stream[:len(stream)-9], Place{}},
		{"blocks without a window", len(data), stream[8:], Place{}},
		{"window too large", 1, stream, Place{Window: maxWindow + 1}},
		{"a frame where blocks should be", len(data), stream, Place{Window: 8 << 20}},
	} {
		err := d.Decode(make([]byte, tc.n), tc.src, tc.at)
		if !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: error %v", tc.name, err)
		}
	}
	dst := make([]byte, len(data))
	if err := d.Decode(dst, stream, Place{}); err != nil || !bytes.Equal(dst, data) {
		t.Errorf("after all that: %v", err)
	}
}

func TestWindowDescriptor(t *testing.T) {
	t.Parallel()
	for d := byte(0); describedWindow(d) <= maxWindow; d++ {
		n := uint32(describedWindow(d))
		if got := descriptor(n); got != d {
			t.Errorf("%d bytes are described by %#x, expected %#x", n, got, d)
		}
		if got := describedWindow(descriptor(n - 1)); got < uint64(n-1) || got > uint64(max(n, minWindow)) {
			t.Errorf("%d bytes are described as %d", n-1, got)
		}
	}
}
