package inflate

// Types of blocks (RFC 1951, section 3.2.3).
const (
	typeStored = iota
	typeFixed
	typeDynamic
)

// lensOrder is the order in which the lengths of the codes for lengths come
// (RFC 1951, section 3.2.7).
var lensOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readBlock reads a block's header and makes its tables (RFC 1951, section 3.2.3).
func (z *Reader) readBlock() error {
	v, err := z.take(3)
	if err != nil {
		return err
	}
	z.final = v&1 != 0
	z.step = inCoded
	switch v >> 1 {
	case typeStored:
		z.step = inStored
		return z.readStored()
	case typeFixed:
		z.fixedTables()
		return nil
	case typeDynamic:
		z.fixed = false
		return z.dynamicTables()
	default:
		return z.malformed("type of a block")
	}
}

// readStored reads the length of a stored block (RFC 1951, section 3.2.4).
func (z *Reader) readStored() error {
	z.align()
	v, err := z.take(32)
	if err != nil {
		return err
	}
	if v&0xffff != v>>16^0xffff {
		return z.malformed("length of a stored block")
	}
	z.stored = int(v & 0xffff)
	return nil
}

// copyStored copies a stored block, or as much as out takes.
func (z *Reader) copyStored() error {
	for z.stored > 0 && z.wp < outFull {
		if z.ip == z.inEnd {
			if err := z.more(); err != nil {
				return err
			}
		}
		n := min(z.stored, outFull-z.wp, z.inEnd-z.ip)
		copy(z.out[z.wp:z.wp+n], z.in[z.ip:z.ip+n])
		z.ip += n
		z.wp += n
		z.stored -= n
	}
	if z.stored == 0 {
		z.step = atBlock
	}
	return nil
}

// fixedTables makes the tables of the fixed code (RFC 1951, section 3.2.6).
func (z *Reader) fixedTables() {
	if z.fixed {
		return
	}
	lens := &z.lens
	for i := range fixedLit {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	build(z.lit[:], litBits, lens[:fixedLit], litSymbols[:])
	for i := range fixedDist {
		lens[i] = 5
	}
	build(z.dist[:], distBits, lens[:fixedDist], distSymbols[:])
	z.fixed = true
}

// dynamicTables reads the codes of a block and makes its tables (RFC 1951,
// section 3.2.7).
func (z *Reader) dynamicTables() error {
	v, err := z.take(14)
	if err != nil {
		return err
	}
	nlit, ndist, nlens := 257+int(v&31), 1+int(v>>5&31), 4+int(v>>10)
	if nlit > maxLit || ndist > maxDist {
		return z.malformed("number of codes")
	}
	var lens [len(lensOrder)]uint8
	for _, sym := range lensOrder[:nlens] {
		v, err := z.take(3)
		if err != nil {
			return err
		}
		lens[sym] = uint8(v)
	}
	// The tables of the block are made after this one has been used.
	table := z.dist[:1<<lensBits]
	if !build(table, lensBits, lens[:], lensSymbols[:]) {
		return z.malformed("code of lengths")
	}
	if err := z.readLens(table, z.lens[:nlit+ndist]); err != nil {
		return err
	}
	if !build(z.lit[:], litBits, z.lens[:nlit], litSymbols[:]) {
		return z.malformed("code of literals")
	}
	if !build(z.dist[:], distBits, z.lens[nlit:nlit+ndist], distSymbols[:]) {
		return z.malformed("code of distances")
	}
	return nil
}

// readLens reads the lengths of a block's codes.
func (z *Reader) readLens(table []uint32, lens []uint8) error {
	for i := 0; i < len(lens); {
		e, err := z.symbol(table, lensBits)
		if err != nil {
			return err
		}
		sym := e >> valueShift
		if sym < 16 {
			lens[i] = uint8(sym)
			i++
			continue
		}
		var value uint8
		base, extra := 3, uint(3)
		switch sym {
		case 16:
			if i == 0 {
				return z.malformed("nothing to repeat")
			}
			value, extra = lens[i-1], 2
		case 18:
			base, extra = 11, 7
		}
		n, err := z.take(extra)
		if err != nil {
			return err
		}
		end := i + base + int(n)
		if end > len(lens) {
			return z.malformed("more lengths than codes")
		}
		for ; i < end; i++ {
			lens[i] = value
		}
	}
	return nil
}
