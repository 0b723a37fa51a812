package layer

import (
	"hash"
	"slices"
)

// maxHoles is how many bytes of a file's holes are hashed. A file with more of
// them gets no digest.
const maxHoles = 1 << 30

// fileSum hashes the content of a file while its data passes by.
type fileSum struct {
	hash    hash.Hash
	inode   uint32 // row in the Builder, None between files
	size    int64
	at      int64    // bytes of the file hashed so far
	extents []Extent // that are not hashed yet, addresses in the tar
	hole    [4096]byte
}

// begin expects the data of an entry that became inode.
func (f *fileSum) begin(inode uint32, h *Header, e *tarEntry) {
	f.inode, f.at, f.size = None, 0, h.Size
	if inode == None || h.Mode&typeMask != typeRegular || h.Size-e.phys > maxHoles {
		return
	}
	f.inode = inode
	f.hash.Reset()
	f.extents = slices.Clone(h.Extents)
	if h.Extents == nil {
		f.extents = []Extent{{Addr: h.Addr, Len: h.Size}}
	}
}

// write takes the tar's bytes at pos.
func (f *fileSum) write(p []byte, pos int64) {
	if f.inode == None {
		return
	}
	for len(p) > 0 && len(f.extents) > 0 {
		e := &f.extents[0]
		if skip := e.Addr - pos; skip > 0 {
			if skip >= int64(len(p)) {
				return
			}
			p, pos = p[skip:], e.Addr
		}
		f.zeros(e.Off - f.at)
		n := min(int64(len(p)), e.Len-(pos-e.Addr))
		f.hash.Write(p[:n])
		p, pos = p[n:], pos+n
		*e = Extent{Off: e.Off + n, Addr: e.Addr + n, Len: e.Len - n}
		f.at = e.Off
		if e.Len == 0 {
			f.extents = f.extents[1:]
		}
	}
}

func (f *fileSum) zeros(n int64) {
	for ; n > 0; n -= int64(len(f.hole)) {
		part := min(n, int64(len(f.hole)))
		f.hash.Write(f.hole[:part])
		f.at += part
	}
}

// end gives the file its digest, if all of it has passed by.
func (f *fileSum) end(b *Builder) {
	inode := f.inode
	f.inode = None
	if inode == None {
		return
	}
	for _, e := range f.extents {
		if e.Len > 0 {
			return
		}
	}
	f.zeros(f.size - f.at)
	b.sums[inode] = [32]byte(f.hash.Sum(nil))
}
