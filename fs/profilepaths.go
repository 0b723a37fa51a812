package fs

import (
	"cmp"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/manifest"
)

// maxTouchPaths is how many paths are told of one touch.
const maxTouchPaths = 1000

// Types in layer.Inode.Mode.
const (
	modeType    = 0o170000
	modeDir     = 0o040000
	modeRegular = 0o100000
)

// ProfileStep is a touch of a profile, for people.
type ProfileStep struct {
	At     int64         `json:"at_ms"` // since the first touch
	Layer  digest.Digest `json:"layer"`
	Addr   int64         `json:"address"`
	Len    int64         `json:"length"`
	Cost   int64         `json:"compressed"` // bytes of the spans that have it, as the layer is indexed here
	Weight int           `json:"weight"`     // thousandths
	Replay bool          `json:"replayed"`   // the weight is enough
	Paths  []string      `json:"paths"`      // in the layer, by address; those that begin or go on there
}

// Steps are a profile's touches with the paths that they are of. What the image
// does not have is left out, as it is when the profile is replayed.
func (m *Image) Steps(p *manifest.Profile) []ProfileStep {
	files := map[*layer.Layer][]located{}
	out := []ProfileStep{}
	for _, t := range p.Touches {
		of := p.Layers[t.Layer]
		r := m.reader(of.Digest)
		if r == nil || r.Index().Info.AddrSize != of.Space {
			continue
		}
		if _, ok := files[r]; !ok {
			files[r] = locate(r.Index())
		}
		var w wanting
		w.left = 1 << 62
		w.addresses(r, t.Addr, t.Len)
		s := ProfileStep{
			At: t.At, Layer: of.Digest, Addr: t.Addr, Len: t.Len, Weight: t.Weight,
			Replay: t.Weight >= replayWeight, Paths: pathsAt(files[r], t.Addr, t.Len),
		}
		for _, one := range w.order {
			s.Cost += r.Index().Spans[one.Span].CLen
		}
		out = append(out, s)
	}
	return out
}

// located is a run of a file's data.
type located struct {
	addr, end int64
	path      string
}

// locate finds all files of a layer, by address.
func locate(x *layer.Index) []located {
	var out []located
	seen := make([]bool, len(x.Inodes)) // of hard links, one is enough
	var walk func(row uint32, dir string)
	walk = func(row uint32, dir string) {
		children := x.Inodes[row].Children
		for _, e := range x.Entries[children.First:][:children.Count] {
			if e.Kind != layer.EntryInode || seen[e.Inode] {
				continue
			}
			seen[e.Inode] = true
			name := path.Join(dir, x.Name(e))
			switch in := &x.Inodes[e.Inode]; in.Mode & modeType {
			case modeDir:
				walk(e.Inode, name)
			case modeRegular:
				out = append(out, runs(x, in, name)...)
			}
		}
	}
	walk(0, "/")
	slices.SortFunc(out, func(a, b located) int { return cmp.Compare(a.addr, b.addr) })
	return out
}

// runs are where the data of a file lies.
func runs(x *layer.Index, in *layer.Inode, name string) []located {
	if in.Extents.Count == 0 {
		return []located{{in.Addr, in.Addr + in.Size, name}}
	}
	var out []located
	for _, e := range x.Extents[in.Extents.First:][:in.Extents.Count] {
		out = append(out, located{e.Addr, e.Addr + e.Len, name})
	}
	return out
}

// pathsAt are the files that have any of the addresses [addr, addr+n).
func pathsAt(files []located, addr, n int64) []string {
	out := []string{}
	// Files do not share addresses, but for hostile tables.
	first, _ := slices.BinarySearchFunc(files, addr, func(f located, addr int64) int {
		return cmp.Compare(f.end, addr+1)
	})
	for ; first < len(files) && files[first].addr < addr+n && len(out) < maxTouchPaths; first++ {
		f := files[first]
		if f.addr < f.end && (len(out) == 0 || out[len(out)-1] != f.path) {
			out = append(out, f.path)
		}
	}
	return out
}
