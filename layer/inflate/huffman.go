package inflate

import "math/bits"

// Sizes of codes (RFC 1951, sections 3.2.5 to 3.2.7).
const (
	maxBits   = 15  // of a code
	maxLit    = 286 // literals, the end of the block, lengths of matches
	maxDist   = 30
	maxMatch  = 258 // bytes
	fixedLit  = 288
	fixedDist = 32
	endBlock  = 256
)

// A table is indexed with the next bits of input. Codes longer than that have
// another table behind it, which the entry points to. The sizes are of powers of
// two above the most that complete codes need.
const (
	litBits   = 11
	distBits  = 8
	lensBits  = 7
	litTable  = 4096
	distTable = 512
)

// An entry of a table:
//
//	bits 0-7    bits used by the code and the extra bits behind it
//	bits 8-11   bits used by the code; of a pointer: bits that index its table
//	bits 12-15  flags
//	bits 16-30  the literal, or the least length or distance, or where the table is
//	bit 31      it is a literal
//
// In a second table the bits that found the table are not counted.
const (
	codeShift   = 8
	codeMask    = 15
	valueShift  = 16
	flagEnd     = 1 << 12 // the block ends
	flagPointer = 1 << 13 // to another table
	flagInvalid = 1 << 14 // no such code
	flagSpecial = 1 << 15 // one of the above
	flagLiteral = 1 << 31
)

// Entries of the symbols of each alphabet, without the length of the code.
var (
	litSymbols  = makeLitSymbols()
	distSymbols = makeDistSymbols()
	lensSymbols = makeLensSymbols()
)

func makeLitSymbols() (t [fixedLit]uint32) {
	for i := range uint32(endBlock) {
		t[i] = flagLiteral | i<<valueShift
	}
	t[endBlock] = flagSpecial | flagEnd
	base := uint32(3)
	for i := endBlock + 1; i < maxLit-1; i++ {
		extra := uint32(max(0, i-261) / 4)
		t[i] = base<<valueShift | extra
		base += 1 << extra
	}
	t[maxLit-1] = maxMatch << valueShift
	for i := maxLit; i < fixedLit; i++ {
		t[i] = flagSpecial | flagInvalid
	}
	return t
}

func makeDistSymbols() (t [fixedDist]uint32) {
	base := uint32(1)
	for i := range maxDist {
		extra := uint32(max(0, i-2) / 2)
		t[i] = base<<valueShift | extra
		base += 1 << extra
	}
	for i := maxDist; i < fixedDist; i++ {
		t[i] = flagSpecial | flagInvalid
	}
	return t
}

func makeLensSymbols() (t [len(lensOrder)]uint32) {
	for i := range t {
		t[i] = uint32(i) << valueShift
	}
	return t
}

// build makes the table of the code with the given lengths, and reports whether
// it is one: complete, or empty, or of one code of one bit, as zlib and
// compress/flate have it. A table has 1<<width entries, and second tables.
func build(table []uint32, width uint, lens []uint8, symbols []uint32) bool {
	var count [maxBits + 1]int
	for _, n := range lens {
		count[n]++
	}
	left := 1
	for _, n := range count[1:] {
		left = left<<1 - n
		if left < 0 {
			return false
		}
	}
	used := len(lens) - count[0]
	if left > 0 && used > 0 && (used != 1 || count[1] != 1) {
		return false
	}

	var start [maxBits + 2]int
	for n := 1; n <= maxBits; n++ {
		start[n+1] = start[n] + count[n]
	}
	var sorted [fixedLit]uint16
	for sym, n := range lens {
		if n != 0 {
			sorted[start[n]] = uint16(sym)
			start[n]++
		}
	}

	// Codes of growing length into a table that doubles with each bit. What
	// they leave out of it belongs to longer codes, or stays invalid.
	table[0] = flagSpecial | flagInvalid
	code, next := uint16(0), sorted[:used]
	for n := uint(1); n <= width; n++ {
		copy(table[1<<(n-1):1<<n], table[:1<<(n-1)])
		for range count[n] {
			table[reverse(code, n)] = symbols[next[0]] + uint32(n)*(1<<codeShift|1)
			code++
			next = next[1:]
		}
		code <<= 1
	}
	if len(next) > 0 {
		buildSecond(table, width, code, &count, next, symbols)
	}
	return true
}

// buildSecond makes the second tables, from the first code longer than width on.
func buildSecond(table []uint32, width uint, code uint16, count *[maxBits + 1]int, next []uint16, symbols []uint32) {
	var size, base uint // of the table at hand
	prefix, free := -1, uint(1)<<width
	for n := width + 1; n <= maxBits; n++ {
		for ; count[n] > 0; count[n]-- {
			index := reverse(code, n)
			if p := int(index & (1<<width - 1)); p != prefix {
				// As many bits as it takes for the codes to come to fill it.
				size = n - width
				for left := 1<<size - count[n]; left > 0; {
					size++
					left = left<<1 - count[width+size]
				}
				prefix, base = p, free
				free += 1 << size
				table[p] = uint32(flagSpecial | flagPointer | base<<valueShift | size<<codeShift | width)
			}
			e := symbols[next[0]] + uint32(n-width)*(1<<codeShift|1)
			for i := index >> width; i < 1<<size; i += 1 << (n - width) {
				table[base+i] = e
			}
			code++
			next = next[1:]
		}
		code <<= 1
	}
}

// reverse returns a code of n bits as it comes in the stream: first bit lowest.
func reverse(code uint16, n uint) uint {
	return uint(bits.Reverse16(code) >> (16 - n))
}
