package inflate

import "encoding/binary"

// fastInput is how much input one round of the fast loop needs, in bytes: it
// takes eight at a time, twice.
const fastInput = 16

// farCopy is the length from which on a match is copied by a call, in bytes.
const farCopy = 32

// decodeCodes decompresses a block of Huffman codes to its end, or until out is
// full.
func (z *Reader) decodeCodes() error {
	for z.step == inCoded && z.wp < outFull {
		var err error
		if z.inEnd-z.ip >= fastInput {
			err = z.decodeFast()
		} else {
			err = z.decodeSlow()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// symbol takes the next code of a table and returns its entry.
func (z *Reader) symbol(table []uint32, width uint) (uint32, error) {
	for {
		e := table[z.bits&(1<<width-1)]
		n := uint(e >> codeShift & codeMask)
		if e&flagPointer != 0 {
			e = table[uint64(e>>valueShift)+z.bits>>width&(1<<n-1)]
			n = width + uint(e>>codeShift&codeMask)
		}
		// Bits not there yet count as zeros: the entry is the one of the
		// code only if the code is no longer than the bits that are there.
		if n <= z.nbits {
			if e&flagInvalid != 0 {
				return 0, z.malformed("code")
			}
			z.drop(n)
			return e, nil
		}
		if err := z.need(z.nbits + 1); err != nil {
			return 0, err
		}
	}
}

// value takes the extra bits of an entry and returns its length or distance.
func (z *Reader) value(e uint32) (int, error) {
	extra := uint(e&0xff) - uint(e>>codeShift&codeMask)
	v, err := z.take(extra)
	return int(e>>valueShift) + int(v), err
}

// decodeSlow decompresses until there is input for the fast loop, taking no byte
// of it before it is needed.
func (z *Reader) decodeSlow() error {
	for z.wp < outFull && z.inEnd-z.ip < fastInput {
		e, err := z.symbol(z.lit[:], litBits)
		if err != nil {
			return err
		}
		if e&flagLiteral != 0 {
			z.out[z.wp] = byte(e >> valueShift)
			z.wp++
			continue
		}
		if e&flagEnd != 0 {
			z.step = atBlock
			return nil
		}
		length, err := z.value(e)
		if err != nil {
			return err
		}
		if e, err = z.symbol(z.dist[:], distBits); err != nil {
			return err
		}
		dist, err := z.value(e)
		if err != nil {
			return err
		}
		src := z.wp - dist
		if src < z.floor && !z.reach(src, length) {
			return z.malformed("distance")
		}
		for end := z.wp + length; z.wp < end; z.wp++ {
			z.out[z.wp] = z.out[src]
			src++
		}
	}
	return nil
}

// decodeFast decompresses while there are fastInput bytes of input and outSlack
// bytes of room, which is at least once.
//
//nolint:gocognit,funlen // one loop, so that its variables stay in registers
func (z *Reader) decodeFast() error {
	var (
		in    = z.in[:z.inEnd]
		last  = len(in) - fastInput
		out   = &z.out
		lit   = &z.lit
		dists = &z.dist
		ip    = z.ip
		wp    = z.wp
		acc   = z.bits
		n     = z.nbits
		what  string
	)
	for ip <= last && wp < outFull {
		acc |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
		ip += int(63-n) >> 3
		n |= 56

		// 56 bits are enough for two literals, a length and its extra bits.
		e := lit[acc&(1<<litBits-1)]
		if e&flagLiteral != 0 {
			out[wp] = byte(e >> valueShift)
			wp++
			acc >>= e & 63
			n -= uint(e & 0xff)
			e = lit[acc&(1<<litBits-1)]
			if e&flagLiteral != 0 {
				out[wp] = byte(e >> valueShift)
				wp++
				acc >>= e & 63
				n -= uint(e & 0xff)
				e = lit[acc&(1<<litBits-1)]
			}
		}
		if e&flagPointer != 0 {
			acc >>= litBits
			n -= litBits
			e = lit[(uint(e>>valueShift)+uint(acc)&(1<<(e>>codeShift&codeMask)-1))&(litTable-1)]
		}
		if e&flagLiteral != 0 {
			out[wp] = byte(e >> valueShift)
			wp++
			acc >>= e & 63
			n -= uint(e & 0xff)
			continue
		}
		if e&flagSpecial != 0 {
			if e&flagEnd == 0 {
				what = "code"
				break
			}
			acc >>= e & 63
			n -= uint(e & 0xff)
			z.step = atBlock
			break
		}
		length := int(e>>valueShift) + int(acc&(1<<(e&63)-1)>>(e>>codeShift&codeMask))
		acc >>= e & 63
		n -= uint(e & 0xff)

		acc |= binary.LittleEndian.Uint64(in[ip:]) << (n & 63)
		ip += int(63-n) >> 3
		n |= 56
		e = dists[acc&(1<<distBits-1)]
		if e&flagSpecial != 0 {
			if e&flagPointer != 0 {
				acc >>= distBits
				n -= distBits
				e = dists[(uint(e>>valueShift)+uint(acc)&(1<<(e>>codeShift&codeMask)-1))&(distTable-1)]
			}
			if e&flagInvalid != 0 {
				what = "code"
				break
			}
		}
		dist := int(e>>valueShift) + int(acc&(1<<(e&63)-1)>>(e>>codeShift&codeMask))
		acc >>= e & 63
		n -= uint(e & 0xff)

		src := wp - dist
		if src < z.floor && !z.reach(src, length) {
			what = "distance"
			break
		}
		end := wp + length
		switch {
		case dist >= length && length > farCopy:
			copy(out[wp:end], out[src:])
		case dist >= 8:
			for {
				binary.LittleEndian.PutUint64(out[wp:], binary.LittleEndian.Uint64(out[src:]))
				wp += 8
				src += 8
				if wp >= end {
					break
				}
			}
		default:
			repeat(out, wp, end, dist)
		}
		wp = end
	}
	// Whole bytes are given back, so that the offset is that of the bits used.
	z.ip, z.wp = ip-int(n>>3), wp
	z.nbits = n & 7
	z.bits = acc & (1<<z.nbits - 1)
	if what != "" {
		return z.malformed(what)
	}
	return nil
}

// repeat fills out[wp:end] with the dist bytes before it again and again, dist
// below 8. It may write 7 bytes beyond end.
func repeat(out *[outSize]byte, wp, end, dist int) {
	shift := uint(dist) * 8
	v := binary.LittleEndian.Uint64(out[wp-dist:]) & (1<<shift - 1)
	v |= v << shift
	v |= v << (2 * shift)
	v |= v << (4 * shift)
	step := 8 - 8%dist
	for ; wp < end; wp += step {
		binary.LittleEndian.PutUint64(out[wp:], v)
	}
}
