// Package flat lays tables of fixed-size records in one file and gives them
// back as typed slices over the mapped bytes: opening is mmap(2) and one
// checksum, not parsing.
//
// A file is a header, a section table and the sections, each aligned to 8
// bytes. Numbers are little-endian. Records are Go structs without pointers
// and without implicit padding; their layout is part of the format, so a
// change of a record is a change of the caller's version number.
//
// Bytes are not trusted: [Decode] checks magic, version, bounds and the
// CRC-32C of everything after the header, and reports [ErrVersion] or
// [ErrCorrupt], which callers answer by rebuilding the file. What the records
// say (row numbers, string offsets) is the caller's to check.
package flat
