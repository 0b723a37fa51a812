package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"
)

// sample is size bytes such as layers have: words, runs, numbers, noise, and
// repetitions of what was up to a window before.
func sample(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := []string{"usr", "share", "lib", "python3", "import ", "return ", "\n\t", "const", "0x7f", " = ", "GPL", "/"}
	out := make([]byte, 0, size+1<<10)
	for len(out) < size {
		switch n := 1 + r.IntN(400); r.IntN(6) {
		case 0, 1:
			for range n / 4 {
				out = append(out, words[r.IntN(len(words))]...)
			}
		case 2:
			out = append(out, bytes.Repeat([]byte{byte(r.Uint32())}, n)...)
		case 3:
			for i := range n / 8 {
				out = binary.LittleEndian.AppendUint64(out, uint64(i)*uint64(n))
			}
		case 4:
			for range n / 3 {
				out = append(out, byte(r.Uint32()))
			}
		case 5:
			if len(out) > 0 {
				from := len(out) - 1 - r.IntN(min(len(out), WindowSize))
				for i := range n {
					out = append(out, out[from+i])
				}
			}
		}
	}
	return out[:size]
}

// compress makes a gzip member of data at a level, flushed after every flush
// bytes if that is above 0.
func compress(tb testing.TB, data []byte, level, flush int) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, level)
	for len(data) > 0 && err == nil {
		n := len(data)
		if flush > 0 {
			n = min(n, flush)
		}
		if _, err = w.Write(data[:n]); err == nil && flush > 0 {
			err = w.Flush()
		}
		data = data[n:]
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// member wraps raw DEFLATE of data in a gzip member with every field a header
// can have.
func member(raw, data []byte) []byte {
	out := []byte{0x1f, 0x8b, 8, flagHeaderCRC | flagExtra | flagName | flagComment | 1, 0, 0, 0, 0, 0, 255, 5, 0}
	out = append(out, "extraname\x00comment\x00"...)
	out = binary.LittleEndian.AppendUint16(out, uint16(crc32.ChecksumIEEE(out)))
	out = append(out, raw...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(out, uint32(len(data)))
}

// bitWriter writes DEFLATE by hand.
type bitWriter struct {
	out  []byte
	acc  uint64
	have uint
}

// bits writes the lowest n bits of v, the lowest first.
func (w *bitWriter) bits(v uint64, n uint) *bitWriter {
	w.acc |= v << w.have
	for w.have += n; w.have >= 8; w.have -= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
	return w
}

// fixed writes a literal, length or end symbol of the fixed code.
func (w *bitWriter) fixed(sym uint16) *bitWriter {
	switch {
	case sym < 144:
		return w.bits(uint64(reverse(0x30+sym, 8)), 8)
	case sym < 256:
		return w.bits(uint64(reverse(0x190+sym-144, 9)), 9)
	case sym < 280:
		return w.bits(uint64(reverse(sym-256, 7)), 7)
	default:
		return w.bits(uint64(reverse(0xc0+sym-280, 8)), 8)
	}
}

// bytes ends the last byte.
func (w *bitWriter) bytes() []byte {
	if w.have > 0 {
		w.bits(0, 8-w.have)
	}
	return w.out
}

// giant is one fixed block of all data.
func giant(data []byte) []byte {
	w := new(bitWriter).bits(0b011, 3)
	for _, b := range data {
		w.fixed(uint16(b))
	}
	return member(w.fixed(endBlock).bytes(), data)
}

// empties is data in two blocks among empty ones of all three types.
func empties(data []byte) []byte {
	w := new(bitWriter)
	half := len(data) / 2
	for _, part := range [][]byte{data[:half], data[half:]} {
		w.bits(0b010, 3).fixed(endBlock) // fixed, empty
		w.bits(0b000, 3)
		w.bytes()
		w.acc, w.have = 0, 0
		w.out = append(w.out, 0, 0, 255, 255) // stored, empty
		w.bits(0b010, 3)
		for _, b := range part {
			w.fixed(uint16(b))
		}
		w.fixed(endBlock)
		// Dynamic, empty: codes of one bit for the end alone, none for distances.
		w.bits(0b100, 3).bits(0, 5).bits(0, 5).bits(14, 4)
		for _, sym := range lensOrder[:18] {
			w.bits(map[uint8]uint64{18: 1, 0: 2, 1: 2}[sym], 3)
		}
		w.bits(0, 1).bits(127, 7).bits(0, 1).bits(107, 7) // 138 and 118 times zero
		w.bits(0b11, 2).bits(0b01, 2)                     // length 1 for the end, 0 for the distance
		w.bits(0, 1)
	}
	return member(w.bits(0b011, 3).fixed(endBlock).bytes(), data)
}

type stream struct {
	name       string
	blob, data []byte
}

// streams are gzip streams of all kinds; each has around size bytes of output.
func streams(tb testing.TB, size int) []stream {
	data := sample(1, size)
	list := []stream{
		{"one giant block", giant(data), data},
		{"empty blocks", empties(data), data},
		{"empty member", compress(tb, nil, 6, 0), nil},
		{"flushed", compress(tb, data, 6, size/20+1), data},
		{"stored and flushed", compress(tb, data, 0, size/9+1), data},
		{"runs", compress(tb, bytes.Repeat([]byte("a"), size), 9, 0), bytes.Repeat([]byte("a"), size)},
	}
	for level, name := range map[int]string{
		-2: "Huffman only", 0: "level 0", 1: "level 1", 2: "level 2", 3: "level 3", 4: "level 4",
		5: "level 5", 6: "level 6", 7: "level 7", 8: "level 8", 9: "level 9",
	} {
		list = append(list, stream{name, compress(tb, data, level, 0), data})
	}
	var raw bytes.Buffer
	w, err := flate.NewWriter(&raw, 6)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	list = append(list, stream{"all fields of a header", member(raw.Bytes(), data), data})
	var many stream
	for i := range 9 {
		part := sample(uint64(i), size/9*(i%4)/2)
		many.blob = append(many.blob, compress(tb, part, i%10, size/40*(i%2))...)
		many.data = append(many.data, part...)
	}
	many.name = "many members"
	return append(list, many)
}

// readAll reads to the end through a buffer of n bytes.
func readAll(z *Reader, n int) ([]byte, error) {
	var out []byte
	buf := make([]byte, n)
	for {
		n, err := z.Read(buf)
		out = append(out, buf[:n]...)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}
