package layer

import (
	"fmt"

	"github.com/peelfs/peel/internal/flat"
)

// indexVersion changes with every change of a record or of its meaning.
const indexVersion = 3

// Sections of an index file.
const (
	sectionInfo uint32 = 1 + iota
	sectionInodes
	sectionEntries
	sectionExtents
	sectionXattrs
	sectionSpans
	sectionChunks
	sectionPool
	sectionCheckpoints
	sectionWindows
	sectionFiles
	sectionDigests
)

func indexMagic() [8]byte { return [8]byte([]byte("PEELLAYR")) }

// Encode returns the index as a file that Decode reads.
func (x *Index) Encode() []byte {
	var e flat.Encoder
	flat.Add(&e, sectionInfo, []Info{x.Info})
	flat.Add(&e, sectionInodes, x.Inodes)
	flat.Add(&e, sectionEntries, x.Entries)
	flat.Add(&e, sectionExtents, x.Extents)
	flat.Add(&e, sectionXattrs, x.Xattrs)
	flat.Add(&e, sectionSpans, x.Spans)
	flat.Add(&e, sectionChunks, x.Chunks)
	flat.Add(&e, sectionPool, x.Pool)
	flat.Add(&e, sectionCheckpoints, x.Checkpoints)
	flat.Add(&e, sectionWindows, x.Windows)
	flat.Add(&e, sectionFiles, x.Files)
	flat.Add(&e, sectionDigests, x.Digests)
	return e.Bytes(indexMagic(), indexVersion)
}

// Decode returns the index in data as a view of it; data must not change or go
// away while the index is in use. The error is flat.ErrVersion or
// flat.ErrCorrupt, and the answer to both is to index the layer again.
func Decode(data []byte) (*Index, error) {
	x, err := decodeTables(data)
	if err != nil {
		return nil, err
	}
	if err := x.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", flat.ErrCorrupt, err)
	}
	return x, nil
}

func decodeTables(data []byte) (*Index, error) {
	f, err := flat.Decode(data, indexMagic(), indexVersion)
	if err != nil {
		return nil, err
	}
	x := new(Index)
	info, err := flat.Records[Info](f, sectionInfo)
	if err != nil {
		return nil, err
	}
	if len(info) != 1 {
		return nil, fmt.Errorf("%w: %d layers", flat.ErrCorrupt, len(info))
	}
	x.Info = info[0]
	for _, read := range []func() error{
		table(f, sectionInodes, &x.Inodes),
		table(f, sectionEntries, &x.Entries),
		table(f, sectionExtents, &x.Extents),
		table(f, sectionXattrs, &x.Xattrs),
		table(f, sectionSpans, &x.Spans),
		table(f, sectionChunks, &x.Chunks),
		table(f, sectionPool, (*[]byte)(&x.Pool)),
		table(f, sectionCheckpoints, &x.Checkpoints),
		table(f, sectionWindows, &x.Windows),
		table(f, sectionFiles, &x.Files),
		table(f, sectionDigests, &x.Digests),
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func table[T any](f *flat.File, id uint32, to *[]T) func() error {
	return func() (err error) {
		*to, err = flat.Records[T](f, id)
		return err
	}
}
