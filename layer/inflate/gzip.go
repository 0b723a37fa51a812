package inflate

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// Flags of a member's header (RFC 1952, section 2.3.1).
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

// maxString is how long a name or comment may be, its zero included, in bytes.
// It is the limit of compress/gzip, which the rest of the world unpacks with.
const maxString = 512

// readHeader reads a member's header (RFC 1952, section 2.3).
func (z *Reader) readHeader() error {
	buf := &z.buf
	if err := z.readFull(buf[:]); err != nil {
		return err
	}
	if buf[0] != 0x1f || buf[1] != 0x8b || buf[2] != 8 {
		return z.malformed("no gzip header")
	}
	flags, crc := buf[3], crc32.ChecksumIEEE(buf[:])
	if err := z.skipFields(flags, &crc); err != nil {
		return err
	}
	if flags&flagHeaderCRC != 0 {
		want := uint16(crc)
		if err := z.readFull(buf[:2]); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(buf[:]) != want {
			return z.malformed("checksum of the header")
		}
	}
	z.step, z.checked = atBlock, true
	z.crc, z.size = 0, 0
	return nil
}

// skipFields reads over the header's fields of variable length.
func (z *Reader) skipFields(flags byte, crc *uint32) error {
	if flags&flagExtra != 0 {
		n, err := z.skipByte(crc)
		if err != nil {
			return err
		}
		high, err := z.skipByte(crc)
		if err != nil {
			return err
		}
		for range int(n) | int(high)<<8 {
			if _, err := z.skipByte(crc); err != nil {
				return err
			}
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		for n, b := 0, byte(1); b != 0; n++ {
			if n == maxString {
				return z.malformed("name or comment too long")
			}
			var err error
			if b, err = z.skipByte(crc); err != nil {
				return err
			}
		}
	}
	return nil
}

// skipByte returns a byte of the header.
func (z *Reader) skipByte(crc *uint32) (byte, error) {
	b := z.buf[:1]
	err := z.readFull(b)
	*crc = crc32.Update(*crc, crc32.IEEETable, b)
	return b[0], err
}

// sum takes output into the member's checksum.
func (z *Reader) sum(p []byte) {
	if z.checked {
		z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
		z.size += uint32(len(p))
	}
}

// endMember reads a member's trailer and looks whether another member follows;
// io.EOF if none does.
func (z *Reader) endMember() error {
	// Nothing of the next member may refer to this one.
	z.lo, z.floor = z.wp, z.wp
	z.align()
	buf := z.buf[:8]
	if err := z.readFull(buf); err != nil {
		return err
	}
	if z.checked {
		if binary.LittleEndian.Uint32(buf) != z.crc {
			return z.malformed("checksum of a member")
		}
		if binary.LittleEndian.Uint32(buf[4:]) != z.size {
			return z.malformed("length of a member")
		}
	}
	z.step = atMember
	if z.ip < z.inEnd {
		return nil
	}
	if ok, err := z.fill(); ok || err != nil {
		return err
	}
	return io.EOF
}
