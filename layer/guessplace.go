package layer

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
)

const (
	modeType    = 0o170000 // S_IFMT of Linux
	modeRegular = 0o100000 // S_IFREG
)

// place is what a span holds data of, by numbers that mean nothing but sameness.
type place struct {
	file uint32 // row in Inodes; None for a span of several files
	dir  uint32 // row in Inodes of the first file's directory
	name uint32 // row in Entries of the first file
	kind uint32 // of that name, see kindOf
}

// places returns where each span lies in the layer's tree. It looks at every
// inode.
func (x *Index) places() []place {
	all := make([]place, len(x.Spans))
	for i := range all {
		all[i] = place{file: None, dir: None}
	}
	seen := make([]bool, len(x.Spans))
	for _, n := range x.filesByAddr() {
		first, count := spansOf(x.Spans, n.addr, n.size)
		for i := first; i < first+count; i++ {
			if seen[i] {
				all[i].file = None
				continue
			}
			seen[i] = true
			all[i] = place{file: n.inode, dir: n.dir, name: n.name, kind: n.kind}
		}
	}
	return all
}

// located is a file with data.
type located struct {
	addr, size             int64
	inode, dir, name, kind uint32
}

func (x *Index) filesByAddr() []located {
	var files []located
	for dir := range x.Inodes {
		d := &x.Inodes[dir]
		for k := range d.Children.Count {
			name := d.Children.First + k
			e := &x.Entries[name]
			if e.Kind != EntryInode || x.Inodes[e.Inode].Size == 0 {
				continue
			}
			addr, size := x.firstRun(&x.Inodes[e.Inode])
			if size > 0 {
				files = append(files, located{addr, size, e.Inode, uint32(dir), name, kindOf(x.Name(*e))})
			}
		}
	}
	slices.SortFunc(files, func(a, b located) int { return cmp.Compare(a.addr, b.addr) })
	return files
}

// firstRun returns where the first run of a regular file's data is.
func (x *Index) firstRun(n *Inode) (addr, size int64) {
	if n.Mode&modeType != modeRegular {
		return 0, 0
	}
	if n.Extents.Count > 0 {
		e := &x.Extents[n.Extents.First]
		return e.Addr, e.Len
	}
	return n.Addr, n.Size
}

// kindOf returns the same number for names that end alike: with the same suffix,
// versions apart, so that libz.so.1 is of the kind of libm.so.
func kindOf(name string) uint32 {
	for {
		dot := strings.LastIndexByte(name, '.')
		if dot < 1 {
			return 0
		}
		suffix := name[dot+1:]
		if strings.Trim(suffix, "0123456789") != "" {
			h := fnv.New32a()
			_, _ = h.Write([]byte(suffix))
			return h.Sum32()
		}
		name = name[:dot]
	}
}
