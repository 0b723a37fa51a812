package ztoc

import (
	"maps"
	"slices"
	"time"

	flatbuffers "github.com/google/flatbuffers/go"
)

// Encode writes a zTOC, with checkpoints of layout 2 for a gzip layer. Its
// tables stand in the order in which SOCI's own tools write them: equal TOCs
// have equal digests, whoever wrote them.
func (t *TOC) Encode() ([]byte, error) {
	if err := t.checkAll(); err != nil {
		return nil, err
	}
	data := t.encode()
	if len(data) > maxTOC {
		return nil, malformed("zTOC: %d bytes, of %d allowed", len(data), maxTOC)
	}
	return data, nil
}

func (t *TOC) encode() []byte {
	b := flatbuffers.NewBuilder(0)
	version := b.CreateString(t.Version)
	tool := b.CreateString(t.BuildTool)
	toc := t.encodeFiles(b)
	compression := t.encodeCompression(b)

	b.StartObject(zSlots)
	b.PrependUOffsetTSlot(zVersion, version, 0)
	b.PrependUOffsetTSlot(zBuildTool, tool, 0)
	b.PrependUOffsetTSlot(zTOC, toc, 0)
	b.PrependInt64Slot(zCompressedSize, t.CompressedSize, 0)
	b.PrependInt64Slot(zUncompressedSize, t.UncompressedSize, 0)
	b.PrependUOffsetTSlot(zCompression, compression, 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes()
}

// checkAll proves that a TOC can be encoded; the builder panics at 2 GiB.
func (t *TOC) checkAll() error {
	if err := t.check(); err != nil {
		return err
	}
	if len(t.Files) > maxFiles {
		return malformed("%d entries, of %d allowed", len(t.Files), maxFiles)
	}
	var end int64
	size := len(t.Version) + len(t.BuildTool)
	for i := range t.Files {
		f := &t.Files[i]
		var err error
		if end, err = f.check(end, t.UncompressedSize); err != nil {
			return malformed("entry %d, %.100q: %w", i, f.Name, err)
		}
		size += len(f.Name) + len(f.Linkname) + len(f.Uname) + len(f.Gname)
		for key, value := range f.PAX {
			size += len(key) + len(value)
		}
	}
	if t.Compression == Gzip {
		size += len(t.Spans) * pointSize
	}
	if size > maxTOC {
		return malformed("zTOC: more than %d bytes", maxTOC)
	}
	return nil
}

func (t *TOC) encodeFiles(b *flatbuffers.Builder) flatbuffers.UOffsetT {
	files := make([]flatbuffers.UOffsetT, len(t.Files))
	for i := len(t.Files) - 1; i >= 0; i-- {
		files[i] = t.Files[i].encode(b)
	}
	list := references(b, files)
	b.StartObject(tocSlots)
	b.PrependUOffsetTSlot(tocFiles, list, 0)
	return b.EndObject()
}

func (f *File) encode(b *flatbuffers.Builder) flatbuffers.UOffsetT {
	name := b.CreateString(f.Name)
	kind := b.CreateString(f.Type)
	linkname := b.CreateString(f.Linkname)
	uname := b.CreateString(f.Uname)
	gname := b.CreateString(f.Gname)
	modTime := b.CreateString(formatTime(f.ModTime))
	pax := f.encodePAX(b)

	b.StartObject(fileSlots)
	b.PrependUOffsetTSlot(fileName, name, 0)
	b.PrependUOffsetTSlot(fileType, kind, 0)
	b.PrependInt64Slot(fileOffset, f.Offset, 0)
	b.PrependInt64Slot(fileSize, f.Size, 0)
	b.PrependUOffsetTSlot(fileLinkname, linkname, 0)
	b.PrependInt64Slot(fileMode, f.Mode, 0)
	b.PrependUint32Slot(fileUID, f.UID, 0)
	b.PrependUint32Slot(fileGID, f.GID, 0)
	b.PrependUOffsetTSlot(fileUname, uname, 0)
	b.PrependUOffsetTSlot(fileGname, gname, 0)
	b.PrependUOffsetTSlot(fileModTime, modTime, 0)
	b.PrependInt64Slot(fileDevmajor, f.Devmajor, 0)
	b.PrependInt64Slot(fileDevminor, f.Devminor, 0)
	b.PrependUOffsetTSlot(filePAX, pax, 0)
	return b.EndObject()
}

// formatTime is empty for a time that is not known.
func formatTime(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// expressible: RFC 3339 has four digits for the year.
func expressible(at time.Time) bool {
	return at.Year() >= 0 && at.Year() <= 9999
}

func (f *File) encodePAX(b *flatbuffers.Builder) flatbuffers.UOffsetT {
	records := make([]flatbuffers.UOffsetT, 0, len(f.PAX))
	for _, k := range slices.Sorted(maps.Keys(f.PAX)) {
		key := b.CreateString(k)
		value := b.CreateString(f.PAX[k])
		b.StartObject(paxSlots)
		b.PrependUOffsetTSlot(paxKey, key, 0)
		b.PrependUOffsetTSlot(paxValue, value, 0)
		records = append(records, b.EndObject())
	}
	return references(b, records)
}

func (t *TOC) encodeCompression(b *flatbuffers.Builder) flatbuffers.UOffsetT {
	points := t.encodeGrid
	if t.Compression == Gzip {
		points = func() []byte {
			return t.appendCheckpoints(make([]byte, 0, pointsHeader+len(t.Spans)*pointSize))
		}
	}
	checkpoints := b.CreateByteVector(points())
	digests := make([]flatbuffers.UOffsetT, 0, len(t.Spans))
	for i := range t.Spans {
		digests = append(digests, b.CreateString(t.Spans[i].Digest.String()))
	}
	list := references(b, digests)
	b.StartObject(compressionSlots)
	b.PrependInt32Slot(compressionMaxSpan, int32(len(t.Spans)-1), 0)
	b.PrependUOffsetTSlot(compressionDigests, list, 0)
	b.PrependUOffsetTSlot(compressionCheckpoints, checkpoints, 0)
	b.PrependInt8Slot(compressionAlgorithm, int8(t.Compression), int8(Gzip))
	return b.EndObject()
}

// references writes a vector of what was written before.
func references(b *flatbuffers.Builder, to []flatbuffers.UOffsetT) flatbuffers.UOffsetT {
	b.StartVector(flatbuffers.SizeUOffsetT, len(to), flatbuffers.SizeUOffsetT)
	for _, at := range slices.Backward(to) {
		b.PrependUOffsetT(at)
	}
	return b.EndVector(len(to))
}
