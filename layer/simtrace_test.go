package layer

import (
	"math"
	"math/rand/v2"
)

// simFile is a file of a synthetic trace.
type simFile struct{ first, n int }

// simTree lays files out as eStargz does: a span per 4 MiB, 300 bytes of headers
// between files, files of a directory side by side.
type simTree struct {
	layer traceLayer
	files []simFile
	dirs  uint32
	rand  *rand.Rand
}

func newSimTree(seed uint64) *simTree { return &simTree{rand: rand.New(rand.NewPCG(seed, seed))} }

// size returns one of a log-normal distribution of the given median.
func (t *simTree) size(median float64, spread float64) int64 {
	return int64(math.Exp(math.Log(median)+spread*t.rand.NormFloat64())) + 100
}

func (t *simTree) dir(kind uint32, sizes ...int64) (files []int) {
	t.dirs++
	for _, size := range sizes {
		f := simFile{first: len(t.layer.spans)}
		for off := int64(0); off < size; off += 4 << 20 {
			t.span(min(size-off, 4<<20))
			t.layer.places = append(t.layer.places, place{file: uint32(len(t.files)), dir: t.dirs, kind: kind})
			f.n++
		}
		files = append(files, len(t.files))
		t.files = append(t.files, f)
	}
	return files
}

func (t *simTree) span(size int64) {
	sp := Span{Len: size, CLen: size * 2 / 5}
	if n := len(t.layer.spans); n > 0 {
		last := &t.layer.spans[n-1]
		sp.Addr, sp.Off = last.Addr+last.Len, last.Off+last.CLen+300
	}
	t.layer.spans = append(t.layer.spans, sp)
}

func (t *simTree) trace() *trace { return &trace{Layers: []traceLayer{t.layer}} }

// read appends reads of all of a file, by 128 KiB, as a kernel does.
func (t *trace) read(f simFile, think int64) {
	spans := t.Layers[0].spans
	addr := spans[f.first].Addr
	end := spans[f.first+f.n-1].Addr + spans[f.first+f.n-1].Len
	t.readRange(addr, end, think)
}

func (t *trace) readRange(addr, end, think int64) {
	for ; addr < end; addr += 128 << 10 {
		t.Reads = append(t.Reads, traceRead{After: len(t.Reads) - 1, Think: think, Addr: addr, Size: min(end-addr, 128<<10)})
		think = 200
	}
}

// pythonLike imports: 60 directories of small files, a dozen of which are read in
// good part, and large libraries between.
func pythonLike() *trace {
	tree := newSimTree(1)
	var hot [][]int
	var libs []int
	for d := range 120 {
		var sizes []int64
		for range 5 + tree.rand.IntN(40) {
			sizes = append(sizes, tree.size(30<<10, 1))
		}
		files := tree.dir(1, sizes...)
		if d%9 == 4 {
			hot = append(hot, files)
		}
		if d%6 == 0 {
			libs = append(libs, tree.dir(2, tree.size(1<<20, 1.2), tree.size(100<<10, 1))...)
		}
		tree.dir(3, tree.size(40<<10, 1.5), tree.size(40<<10, 1.5), tree.size(40<<10, 1.5))
	}
	t := tree.trace()
	for d, files := range hot {
		tree.rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		for k, f := range files[:len(files)*3/5] {
			t.read(tree.files[f], 2500)
			if k == 3 && d < len(libs) {
				t.read(tree.files[libs[d]], 3000)
			}
		}
	}
	t.Tail = 100_000
	return t
}

// findAndCat reads all files of some directories in order.
func findAndCat() *trace {
	tree := newSimTree(2)
	var all []int
	for d := range 100 {
		var sizes []int64
		for range 60 {
			sizes = append(sizes, tree.size(4<<10, 1))
		}
		if files := tree.dir(1, sizes...); d >= 30 && d < 60 {
			all = append(all, files...)
		}
	}
	t := tree.trace()
	for _, f := range all {
		t.read(tree.files[f], 300)
	}
	return t
}

func oneLargeFile() *trace {
	tree := newSimTree(3)
	f := tree.dir(1, 1<<30)
	t := tree.trace()
	t.read(tree.files[f[0]], 1000)
	return t
}

// everyOther reads every other MiB of a file of small spans.
func everyOther() *trace {
	tree := newSimTree(4)
	sizes := make([]int64, 512)
	for i := range sizes {
		sizes[i] = 1 << 20
	}
	tree.dir(1, sizes...)
	t := tree.trace()
	for addr := int64(256 << 20); addr >= 0; addr -= 2 << 20 {
		t.readRange(addr, addr+1<<20, 500)
	}
	return t
}

// atRandom reads files that have nothing to do with one another.
func atRandom() *trace {
	tree := newSimTree(5)
	for range 200 {
		var sizes []int64
		for range 20 {
			sizes = append(sizes, tree.size(30<<10, 1.3))
		}
		tree.dir(tree.rand.Uint32N(10), sizes...)
	}
	t := tree.trace()
	for range 300 {
		t.read(tree.files[tree.rand.IntN(len(tree.files))], 2000)
	}
	return t
}
