package tree

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// everything is a small tree with a row in every table.
func everything(tb testing.TB) *Tree {
	sparse := file("sparse", 0, 100)
	sparse.Extents = []layer.Extent{{Off: 10, Addr: 0, Len: 5}, {Off: 50, Addr: 5, Len: 50}}
	capable := file("bin/ping", 200, 3)
	capable.Xattrs = map[string]string{"security.capability": "\x01\x00", "user.a": ""}
	return mergeAll(tb,
		[]layer.Header{dir("bin", 0o755), capable, sparse, symlink("link", "bin/ping"), {Name: "dev/null", Mode: typeChar | 0o666, RdevMajor: 1, RdevMinor: 3}},
		[]layer.Header{hardlink("bin/pong", "bin/ping"), file("a", 100, 100)})
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	first := func(tr *Tree, mode uint32) *Inode {
		i := slices.IndexFunc(tr.Inodes[1:], func(n Inode) bool { return n.Mode&typeMask == mode })
		return &tr.Inodes[1+i]
	}
	for _, tc := range []struct {
		name  string
		spoil func(tr *Tree)
	}{
		{"no inodes", func(tr *Tree) { tr.Inodes, tr.Entries = nil, nil }},
		{"root is a file", func(tr *Tree) { tr.Inodes[0].Mode = typeFile }},
		{"root has a parent", func(tr *Tree) { tr.Inodes[0].Parent = 1 }},
		{"inode out of range", func(tr *Tree) { tr.Entries[0].Inode = 1 << 31 }},
		{"inode out of turn", func(tr *Tree) { tr.Entries[0].Inode++ }},
		{"cycle", func(tr *Tree) { tr.Entries[len(tr.Entries)-1].Inode = 0 }},
		{"directory that only it names", func(tr *Tree) {
			tr.Inodes = []Inode{{Inode: layer.Inode{Mode: typeDir}, Nlink: 2}, {Inode: layer.Inode{Mode: typeDir, Children: flat.Range{Count: 1}}, Nlink: 3, Parent: 1}}
			tr.Entries = []Entry{{Name: tr.Entries[0].Name, Inode: 1, Type: typeDir}}
			tr.Extents, tr.Xattrs = nil, nil
		}},
		{"type of an entry", func(tr *Tree) { tr.Entries[0].Type = typeDir }},
		{"type unknown", func(tr *Tree) { tr.Inodes[1].Mode, tr.Entries[0].Type = 0, 0 }},
		{"entry that nothing refers to", func(tr *Tree) { tr.Entries = append(tr.Entries, Entry{}) }},
		{"inode that nothing refers to", func(tr *Tree) { tr.Inodes = append(tr.Inodes, *first(tr, typeFile)) }},
		{"entry missing", func(tr *Tree) { tr.Entries = tr.Entries[:len(tr.Entries)-1] }},
		{"children beyond the table", func(tr *Tree) { tr.Inodes[0].Children.Count = 1 << 31 }},
		{"children of another", func(tr *Tree) { first(tr, typeDir).Children.First-- }},
		{"children of a file", func(tr *Tree) { first(tr, typeFile).Children.Count = 1 }},
		{"order of names", func(tr *Tree) { tr.Entries[0].Name, tr.Entries[1].Name = tr.Entries[1].Name, tr.Entries[0].Name }},
		{"name twice", func(tr *Tree) { tr.Entries[1].Name = tr.Entries[0].Name }},
		{"name outside the pool", func(tr *Tree) { tr.Entries[0].Name.Off = 1 << 31 }},
		{"empty name", func(tr *Tree) { tr.Entries[0].Name.Len = 0 }},
		{"name with a slash", func(tr *Tree) { tr.Entries[0].Name = tr.Inodes[tr.mustWalk("link")].Link }},
		{"parent", func(tr *Tree) { tr.Inodes[len(tr.Inodes)-1].Parent = 0 }},
		{"links of a directory", func(tr *Tree) { tr.Inodes[0].Nlink++ }},
		{"links of a file", func(tr *Tree) { first(tr, typeFile).Nlink++ }},
		{"file without links", func(tr *Tree) { first(tr, typeFile).Nlink = 0 }},
		{"layer", func(tr *Tree) { first(tr, typeFile).Layer = 2 }},
		{"nanoseconds", func(tr *Tree) { tr.Inodes[1].MtimeNsec = 1e9 }},
		{"size below zero", func(tr *Tree) { tr.Inodes[tr.mustWalk("a")].Size = -1 }},
		{"address below zero", func(tr *Tree) { tr.Inodes[tr.mustWalk("a")].Addr = -1 }},
		{"address too large", func(tr *Tree) { tr.Inodes[tr.mustWalk("a")].Addr = 1<<63 - 50 }},
		{"size of a symlink", func(tr *Tree) { first(tr, typeSymlink).Size++ }},
		{"symlink without target", func(tr *Tree) { n := first(tr, typeSymlink); n.Size, n.Link = 0, flat.Str{} }},
		{"target outside the pool", func(tr *Tree) { first(tr, typeSymlink).Link.Off = 1 << 31 }},
		{"file with a target", func(tr *Tree) { first(tr, typeFile).Link = first(tr, typeSymlink).Link }},
		{"directory with a size", func(tr *Tree) { tr.Inodes[0].Size = 1 }},
		{"device with a size", func(tr *Tree) { first(tr, typeChar).Size = 1 }},
		{"extents overlap", func(tr *Tree) { tr.Extents[1].Off = 14 }},
		{"extent past the end", func(tr *Tree) { tr.Extents[1].Len++ }},
		{"extent below zero", func(tr *Tree) { tr.Extents[0].Len = -1 }},
		{"extent at no address", func(tr *Tree) { tr.Extents[0].Addr = -1 }},
		{"extents beyond the table", func(tr *Tree) { tr.Inodes[tr.mustWalk("sparse")].Extents.Count = 3 }},
		{"extent that nothing refers to", func(tr *Tree) { tr.Extents = append(tr.Extents, layer.Extent{}) }},
		{"extents of a directory", func(tr *Tree) { tr.Inodes[0].Extents.Count = 1 }},
		{"xattrs unsorted", func(tr *Tree) { slices.Reverse(tr.Xattrs) }},
		{"xattr outside the pool", func(tr *Tree) { tr.Xattrs[0].Value.Len = 1 << 31 }},
		{"xattr that nothing refers to", func(tr *Tree) { tr.Xattrs = append(tr.Xattrs, tr.Xattrs[0]) }},
		{"xattrs beyond the table", func(tr *Tree) { tr.Inodes[tr.mustWalk("bin/ping")].Xattrs.Count++ }},
		{"digest outside the pool", func(tr *Tree) { tr.Layers[0].Blob.Len = 1 << 31 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := everything(t)
			tc.spoil(tr)
			if _, err := Decode(tr.Encode()); !errors.Is(err, flat.ErrCorrupt) {
				t.Errorf("error %v, want flat.ErrCorrupt", err)
			}
		})
	}
}

func (t *Tree) mustWalk(path string) uint32 {
	row, err := t.Walk(path)
	if err != nil {
		panic(err)
	}
	return row
}

func TestDecodeOtherVersion(t *testing.T) {
	t.Parallel()
	var e flat.Encoder
	flat.Add(&e, sectionInodes, everything(t).Inodes)
	if _, err := Decode(e.Bytes(magic(), version+1)); !errors.Is(err, flat.ErrVersion) {
		t.Error(err)
	}
	if _, err := Decode(nil); !errors.Is(err, flat.ErrCorrupt) {
		t.Error(err)
	}
}

func TestDecodeAllocates(t *testing.T) {
	data := bigTree(t, 2000).Encode()
	small := everything(t).Encode()
	count := func(data []byte) float64 {
		return testing.AllocsPerRun(10, func() {
			if _, err := Decode(data); err != nil {
				t.Error(err)
			}
		})
	}
	if a, b := count(small), count(data); a != b {
		t.Errorf("%v allocations for a small tree, %v for a large one", a, b)
	}
}

// FuzzDecode spoils a good file at some places, with a checksum that fits, and
// uses all that is decoded nevertheless.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	for i := range byte(60) {
		f.Add([]byte{0, 40 + i*4, i, 1, 40 + i*3, 0xff})
	}
	good := everything(f).Encode()
	f.Fuzz(func(t *testing.T, edits []byte) {
		data := slices.Clone(good)
		for ; len(edits) >= 3; edits = edits[3:] {
			at := int(binary.BigEndian.Uint16(edits)) % (len(data) - headerSize)
			data[headerSize+at] = edits[2]
		}
		binary.LittleEndian.PutUint32(data[crcOffset:], crc32.Checksum(data[headerSize:], crc32.MakeTable(crc32.Castagnoli)))
		tr, err := Decode(data)
		if err != nil {
			if !errors.Is(err, flat.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		useAll(t, tr)
	})
}

// Where flat has the checksum and ends its header, bytes.
const (
	crcOffset  = 24
	headerSize = 32
)

// useAll calls every method that follows a reference.
func useAll(t *testing.T, tr *Tree) {
	t.Helper()
	for i := range tr.Inodes {
		row := uint32(i)
		at, err := tr.Walk(tr.Path(row))
		if err != nil || at != row {
			t.Fatalf("Walk(%q) = %d, %v; want %d", tr.Path(row), at, err, row)
		}
		_, _ = tr.Resolve(tr.Path(row))
		_ = tr.Link(row)
		_, _ = tr.Xattr(row, "user.none")
		_ = tr.Data(row, nil)
		if n := tr.Inodes[row]; n.Mode&typeMask == typeFile {
			p := make([]byte, 64)
			for _, off := range []int64{0, 12, n.Size / 2, max(0, n.Size-10)} {
				if _, err := tr.ReadFile(t.Context(), pattern{}, row, p, off); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	_ = tr.Fits(nil)
}
