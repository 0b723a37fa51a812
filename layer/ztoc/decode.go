package ztoc

import (
	"time"

	flatbuffers "github.com/google/flatbuffers/go"
	"github.com/opencontainers/go-digest"
)

// The slots of the format's tables, in the order of their fields.
const (
	zVersion = iota
	zBuildTool
	zCompressedSize
	zUncompressedSize
	zTOC
	zCompression
	zSlots
)

const (
	tocFiles = iota
	tocSlots
)

const (
	fileName = iota
	fileType
	fileOffset
	fileSize
	fileLinkname
	fileMode
	fileUID
	fileGID
	fileUname
	fileGname
	fileModTime
	fileDevmajor
	fileDevminor
	filePAX
	fileSlots
)

const (
	paxKey = iota
	paxValue
	paxSlots
)

const (
	compressionAlgorithm = iota
	compressionMaxSpan
	compressionDigests
	compressionCheckpoints
	compressionSlots
)

// A TOC that is larger than this many times its encoding is refused: strings
// can be referred to more than once, but no tool does that to excess.
const maxSharing = 4

// costPAX is what a record of an extended header costs besides its strings, in
// bytes.
const costPAX = 16

// Decode reads a zTOC. The windows in it share memory with data.
func Decode(data []byte) (*TOC, error) {
	if len(data) > maxTOC {
		return nil, malformed("zTOC: %d bytes, of %d allowed", len(data), maxTOC)
	}
	// A finished flatbuffer is padded to its largest alignment, at least 4.
	if len(data)%flatbuffers.SizeUOffsetT != 0 {
		return nil, malformed("zTOC: cut off: %d bytes", len(data))
	}
	f := &flat{buf: data, left: maxSharing * int64(len(data))}
	z := f.root("zTOC")
	t := &TOC{
		Version:          z.string(zVersion),
		BuildTool:        z.string(zBuildTool),
		CompressedSize:   z.int64(zCompressedSize),
		UncompressedSize: z.int64(zUncompressedSize),
	}
	t.files(f, z.table(zTOC, "table of contents"))
	if f.err == nil {
		t.compression(f, z.table(zCompression, "compression info"))
	}
	if f.err != nil {
		return nil, f.err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// files appends instead of allocating what the vector claims: a million
// references to one table are refused at the second one.
func (t *TOC) files(f *flat, toc table) {
	v := toc.vector(tocFiles, flatbuffers.SizeUOffsetT)
	if v.n > maxFiles {
		f.fail("%d entries, of %d allowed", v.n, maxFiles)
		return
	}
	var end int64
	for i := range v.n {
		file := f.file(f.table(f.element(v, i), "entry", i))
		if f.err != nil {
			return
		}
		var err error
		if end, err = file.check(end, t.UncompressedSize); err != nil {
			f.fail("entry %d, %.100q: %w", i, file.Name, err)
			return
		}
		t.Files = append(t.Files, file)
	}
}

func (f *flat) file(t table) File {
	return File{
		Name:     t.string(fileName),
		Type:     t.string(fileType),
		Offset:   t.int64(fileOffset),
		Size:     t.int64(fileSize),
		Linkname: t.string(fileLinkname),
		Mode:     t.int64(fileMode),
		UID:      t.uint32(fileUID),
		GID:      t.uint32(fileGID),
		Uname:    t.string(fileUname),
		Gname:    t.string(fileGname),
		ModTime:  t.time(fileModTime),
		Devmajor: t.int64(fileDevmajor),
		Devminor: t.int64(fileDevminor),
		PAX:      t.pax(filePAX),
	}
}

func (t table) time(slot int) time.Time {
	s := t.string(slot)
	if s == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	at = at.UTC()
	if err != nil || !expressible(at) {
		t.fail("time %.40q", s)
		return time.Time{}
	}
	return at
}

func (t table) pax(slot int) map[string]string {
	v := t.vector(slot, flatbuffers.SizeUOffsetT)
	if v.n == 0 {
		return nil
	}
	records := map[string]string{}
	for i := range v.n {
		record := t.f.table(t.f.element(v, i), "extended header", i)
		key := record.string(paxKey)
		if _, twice := records[key]; twice {
			t.fail("extended header %.100q stands there twice", key)
		}
		records[key] = record.string(paxValue)
		if !t.f.spend(costPAX) {
			return nil
		}
	}
	return records
}

func (t *TOC) compression(f *flat, c table) {
	t.Compression = Compression(c.int8(compressionAlgorithm, int8(Gzip)))
	v := c.vector(compressionDigests, flatbuffers.SizeUOffsetT)
	n := int64(c.int32(compressionMaxSpan)) + 1
	points := c.bytes(compressionCheckpoints)
	switch {
	case f.err != nil:
		return
	case v.n == 0 || v.n > maxSpans:
		f.fail("%d spans, of 1 to %d allowed", v.n, maxSpans)
		return
	case n != int64(v.n):
		f.fail("digests of %d spans, but %d spans", v.n, n)
		return
	}
	var err error
	switch t.Compression {
	case Gzip:
		err = t.readCheckpoints(points, v.n)
	case Uncompressed:
		err = t.readGrid(points, v.n)
	default:
		err = malformed("unknown compression %d", t.Compression)
	}
	if err != nil {
		f.err = err
		return
	}
	for i := range t.Spans {
		s := f.string(f.element(v, i), c)
		if f.err != nil {
			return
		}
		t.Spans[i].Digest = digest.Digest(s)
	}
}
