package flat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"unsafe"
)

// Errors that tell a caller to rebuild the file.
var (
	// ErrVersion: the file was written by another version of the format.
	ErrVersion = errors.New("other format version")
	// ErrCorrupt: the bytes are not what was written.
	ErrCorrupt = errors.New("corrupt file")
)

// header is the first record of a file.
type header struct {
	Magic    [8]byte
	Version  uint32
	Sections uint32
	Size     uint64 // of the whole file, bytes
	CRC      uint32 // CRC-32C of the bytes after the header
	_        uint32
}

// section is one row of the section table.
type section struct {
	ID     uint32
	Record uint32 // size of a record, bytes
	Off    uint64 // from the start of the file, a multiple of 8
	Count  uint64 // records
}

const (
	headerSize  = int(unsafe.Sizeof(header{}))
	sectionSize = int(unsafe.Sizeof(section{}))
	maxSections = 64
)

// Encoder collects sections and lays them out as one file.
type Encoder struct {
	sections []section
	bodies   [][]byte
}

// Add appends records as section id. The records must not change until Bytes.
func Add[T any](e *Encoder, id uint32, records []T) {
	e.sections = append(e.sections, section{ID: id, Record: uint32(unsafe.Sizeof(*new(T))), Count: uint64(len(records))})
	e.bodies = append(e.bodies, asBytes(records))
}

// Bytes returns the file.
func (e *Encoder) Bytes(magic [8]byte, version uint32) []byte {
	off := headerSize + len(e.sections)*sectionSize
	for i, b := range e.bodies {
		off = align(off)
		e.sections[i].Off = uint64(off)
		off += len(b)
	}
	out := make([]byte, off)
	copy(out[headerSize:], asBytes(e.sections))
	for i, b := range e.bodies {
		copy(out[e.sections[i].Off:], b)
	}
	h := header{
		Magic: magic, Version: version, Sections: uint32(len(e.sections)), Size: uint64(off),
		CRC: crc32.Checksum(out[headerSize:], crc32.MakeTable(crc32.Castagnoli)),
	}
	copy(out, asBytes([]header{h}))
	return out
}

// File is a decoded file: a view of the bytes given to Decode, which must
// outlive it.
type File struct {
	data     []byte
	sections []section
}

// Decode checks data and returns a view of it. The slice must be aligned to 8
// bytes, as mappings and allocations of such a size are.
func Decode(data []byte, magic [8]byte, version uint32) (*File, error) {
	f, err := Skim(data, magic, version)
	if err != nil {
		return nil, err
	}
	h := (*header)(unsafe.Pointer(unsafe.SliceData(data)))
	if crc32.Checksum(data[headerSize:], crc32.MakeTable(crc32.Castagnoli)) != h.CRC {
		return nil, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	return f, nil
}

// Skim is Decode without a look at the checksum, for those who believe nothing
// of what the records say, and read few of them.
func Skim(data []byte, magic [8]byte, version uint32) (*File, error) {
	if !littleEndian() {
		return nil, fmt.Errorf("%w: big-endian machines are not supported", ErrVersion)
	}
	if len(data) < headerSize || uintptr(unsafe.Pointer(unsafe.SliceData(data)))%8 != 0 {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(data))
	}
	h := *(*header)(unsafe.Pointer(unsafe.SliceData(data)))
	switch {
	case h.Magic != magic:
		return nil, fmt.Errorf("%w: magic %q", ErrCorrupt, h.Magic[:])
	case h.Version != version:
		return nil, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, h.Version, version)
	case h.Size != uint64(len(data)) || h.Sections > maxSections || len(data) < headerSize+int(h.Sections)*sectionSize:
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrCorrupt, len(data), h.Size)
	}
	return &File{data: data, sections: view[section](data[headerSize:], int(h.Sections))}, nil
}

// Records returns section id as a slice of T over the file's bytes. A section
// that is absent is empty.
func Records[T any](f *File, id uint32) ([]T, error) {
	for _, s := range f.sections {
		if s.ID != id {
			continue
		}
		size := uint64(unsafe.Sizeof(*new(T)))
		if uint64(s.Record) != size {
			return nil, fmt.Errorf("%w: section %d has records of %d bytes, not %d", ErrCorrupt, id, s.Record, size)
		}
		if s.Count > math.MaxInt32 || s.Off%8 != 0 || s.Off > uint64(len(f.data)) || s.Count*size > uint64(len(f.data))-s.Off {
			return nil, fmt.Errorf("%w: section %d lies outside the file", ErrCorrupt, id)
		}
		return view[T](f.data[s.Off:], int(s.Count)), nil
	}
	return nil, nil
}

func view[T any](b []byte, n int) []T {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func asBytes[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}

func align(n int) int { return (n + 7) &^ 7 }

func littleEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }
