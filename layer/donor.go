package layer

import (
	"os"
	"sort"

	"github.com/peelfs/peel/internal/flat"
)

// Donor is another layer that was read on this machine. Nothing that it says
// is believed: what comes from it is verified as if it came from the source.
type Donor interface {
	// Index returns the file of the layer's index, which may be used until
	// release is called.
	Index() (file []byte, release func() error, err error)
	// Lender opens the layer's data, of size bytes in so many spans.
	Lender(size int64, spans int) (Lender, error)
}

// Lender has bytes of a layer.
type Lender interface {
	// Has reports whether all of the spans [first, first+n) were there when the
	// Lender was opened.
	Has(first, n int) bool
	// Lend fills p with the bytes at addr and reports true, or false if there are
	// none now. If there are, it calls use, unless that is nil, while nobody can
	// take them away from file, where they lie at addr.
	Lend(p []byte, addr int64, use func(file *os.File) error) (bool, error)
}

// Adopter is a Store that can share a span's place on disk with another file.
type Adopter interface {
	// Adopt is Put of bytes that lie at from in file, too.
	Adopt(span int, addr int64, data []byte, file *os.File, from int64) error
}

// giving is what a donor's index says. It was not validated, which would take
// longer than to look up what is wanted.
type giving struct {
	info    Info
	spans   []Span
	chunks  []Chunk
	digests []DigestRef
	files   []File
	inodes  []Inode
	extents []Extent
}

func skim(data []byte) (*giving, error) {
	f, err := flat.Skim(data, indexMagic(), indexVersion)
	if err != nil {
		return nil, err
	}
	g := new(giving)
	var info []Info
	for _, read := range []func() error{
		table(f, sectionInfo, &info),
		table(f, sectionSpans, &g.spans),
		table(f, sectionChunks, &g.chunks),
		table(f, sectionDigests, &g.digests),
		table(f, sectionFiles, &g.files),
		table(f, sectionInodes, &g.inodes),
		table(f, sectionExtents, &g.extents),
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if len(info) != 1 {
		return nil, flat.ErrCorrupt
	}
	g.info = info[0]
	return g, nil
}

// has reports whether lender has the addresses [addr, addr+n).
func (g *giving) has(lender Lender, addr, n int64) bool {
	first := sort.Search(len(g.spans), func(i int) bool { return g.spans[i].Addr > addr }) - 1
	if first < 0 || n <= 0 || n > maxSpan {
		return false
	}
	for i := first; i < len(g.spans); i++ {
		if !lender.Has(i, 1) {
			return false
		}
		if s := &g.spans[i]; s.Len >= addr+n-s.Addr {
			return true
		}
	}
	return false
}

// content returns the digest of what r is of, and where that is.
func (g *giving) content(r DigestRef) ([32]byte, []Extent) {
	switch {
	case r.File == 0 && int(r.Row) < len(g.chunks):
		c := &g.chunks[r.Row]
		return c.SHA256, []Extent{{Addr: c.Addr, Len: int64(c.Len)}}
	case r.File == 1 && int(r.Row) < len(g.files):
		f := &g.files[r.Row]
		return f.SHA256, g.dataOf(f.Inode)
	}
	return [32]byte{}, nil
}

// dataOf returns the runs of the data of the inode in a row.
func (g *giving) dataOf(row uint32) []Extent {
	if int(row) >= len(g.inodes) {
		return nil
	}
	in := &g.inodes[row]
	switch {
	case in.Extents.Count == 0:
		return []Extent{{Addr: in.Addr, Len: in.Size}}
	case in.Extents.In(len(g.extents)):
		return g.extents[in.Extents.First:][:in.Extents.Count]
	}
	return nil
}
