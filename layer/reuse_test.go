package layer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"

	"github.com/peelfs/peel/internal/flat"
)

// kin is a Donor in memory, of the spans that has holds for.
type kin struct {
	file  []byte
	space []byte
	has   func(span int) bool // nil: all
	lend  func(p []byte)      // does something to the bytes, if not nil
	err   error               // of Index
	gone  error               // of Lender

	asked, opened, released int
}

func kinOf(b *bottled) *kin { return &kin{file: b.x.Encode(), space: b.space} }

func (k *kin) Index() ([]byte, func() error, error) {
	k.asked++
	return k.file, func() error { k.released++; return nil }, k.err
}

func (k *kin) Lender(int64, int) (Lender, error) {
	k.opened++
	return k, k.gone
}

func (k *kin) Has(first, n int) bool {
	for i := first; i < first+n; i++ {
		if k.has != nil && !k.has(i) {
			return false
		}
	}
	return true
}

func (k *kin) Lend(p []byte, addr int64, use func(*os.File) error) (bool, error) {
	if addr < 0 || addr > int64(len(k.space)-len(p)) {
		return false, errors.New("outside")
	}
	copy(p, k.space[addr:])
	if k.lend != nil {
		k.lend(p)
	}
	if use == nil {
		return true, nil
	}
	return true, use(nil)
}

func kins(ks ...*kin) func() []Donor {
	return func() []Donor {
		var out []Donor
		for _, k := range ks {
			out = append(out, k)
		}
		return out
	}
}

// reused reads all spans that donors have, and returns which they were.
func reused(t *testing.T, b *bottled, s *shelf, donors func() []Donor) []int {
	t.Helper()
	l := b.open(t, &wire{fail: func(int64) error { return errWire }}, s, Options{Donors: donors})
	var got []int
	for i, sp := range b.x.Spans {
		p, before := make([]byte, sp.Len), s.Has(i)
		if !l.readReused(i, p) {
			if s.Has(i) != before {
				t.Errorf("span %d is stored", i)
			}
			continue
		}
		if got = append(got, i); !bytes.Equal(p, b.space[sp.Addr:][:sp.Len]) || !bytes.Equal(s.data[i], p) {
			t.Errorf("span %d: wrong bytes, or stored ones", i)
		}
	}
	return got
}

// TestReuseAcrossForms: a layer with two files more than another has needs
// their spans only, whatever form the other has.
func TestReuseAcrossForms(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"estargz", "estargz shared members", "zstd:chunked"} {
		for _, donor := range ways() {
			if donor == "zTOC" {
				continue
			}
			t.Run(form+" from "+donor, func(t *testing.T) {
				t.Parallel()
				b := bottle(t, form, append(slices.Clone(mixed), 70_000, 333)...)
				k := kinOf(bottle(t, donor, mixed...))
				end := files(b.x)["/f0013"].Addr
				var want []int
				for i, s := range b.x.Spans {
					if s.Addr+s.Len <= end {
						want = append(want, i)
					}
				}
				if got := reused(t, b, newShelf(b.x), kins(k)); len(want) < 3 || !slices.Equal(got, want) {
					t.Errorf("spans %v reused, want %v", got, want)
				}
				if k.asked != 1 || k.opened != 1 || k.released != 1 {
					t.Errorf("asked %d times, opened %d times, released %d times", k.asked, k.opened, k.released)
				}
			})
		}
	}
}

// TestReuseStreamed: spans of a tar are found where they are alike, or within a
// file that is long enough, be its layer's index somebody's.
func TestReuseStreamed(t *testing.T) {
	t.Parallel()
	sizes := []int{100_000, 9 << 20, 5}
	for _, donor := range []string{"gzip", "zstd", "tar", "estargz"} {
		t.Run(donor, func(t *testing.T) {
			t.Parallel()
			b := bottle(t, "gzip", sizes...)
			x, err := Unpack(b.x.Pack(), descriptor(b.blob, mediaGzip, nil), someClaim())
			if err != nil {
				t.Fatal(err)
			}
			b.x = x
			f := files(x)["/f0001"]
			var want []int
			for i, s := range x.Spans {
				if s.Addr >= f.Addr && s.Addr+s.Len <= f.Addr+f.Size || donor == "gzip" {
					want = append(want, i)
				}
			}
			if got := reused(t, b, newShelf(x), kins(kinOf(bottle(t, donor, sizes...)))); len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("spans %v reused of %d, want %v", got, len(x.Spans), want)
			}
		})
	}
}

func TestReuseDonors(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", mixed...)
	all := make([]int, len(b.x.Spans))
	for i := range all {
		all[i] = i
	}
	odd := slices.DeleteFunc(slices.Clone(all), func(i int) bool { return i%2 == 0 })
	same := func(change func(k *kin)) *kin {
		k := kinOf(b)
		change(k)
		return k
	}
	isOdd := func(i int) bool { return i%2 == 1 }
	wrong := func(p []byte) { p[len(p)/2] ^= 1 }
	older := func(k *kin) { k.file = bytes.Clone(k.file); k.file[8]-- }
	for _, tc := range []struct {
		name   string
		donors []*kin
		want   []int
	}{
		{"none", nil, nil},
		{"one that has nothing", []*kin{same(func(k *kin) { k.has = func(int) bool { return false } })}, nil},
		{"one that has half", []*kin{same(func(k *kin) { k.has = isOdd })}, odd},
		{"two that have a half each", []*kin{same(func(k *kin) { k.has = isOdd }), same(func(k *kin) { k.has = func(i int) bool { return !isOdd(i) } })}, all},
		{"one whose bytes are wrong", []*kin{same(func(k *kin) { k.lend = wrong })}, nil},
		{"one whose data are short", []*kin{same(func(k *kin) { k.space = nil })}, nil},
		{"one without an index, then a good one", []*kin{same(func(k *kin) { k.file, k.err = nil, errWire }), kinOf(b)}, all},
		{"one of another version, then a good one", []*kin{same(older), kinOf(b)}, all},
		{"one without data, then a good one", []*kin{same(func(k *kin) { k.gone = errWire }), kinOf(b)}, all},
		{"no index at all, then a good one", []*kin{same(func(k *kin) { k.file = []byte{1} }), kinOf(b)}, all},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := reused(t, b, newShelf(b.x), kins(tc.donors...)); !slices.Equal(got, tc.want) {
				t.Errorf("spans %v reused, want %v", got, tc.want)
			}
		})
	}
}

// TestReuseAsksForWhatIsMissing: donors are not asked for anything else, and
// none after all was found.
func TestReuseAsksForWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", mixed...)
	first, second := kinOf(b), kinOf(b)
	s := newShelf(b.x)
	for i, sp := range b.x.Spans[1:] {
		if err := s.Put(i+1, sp.Addr, b.space[sp.Addr:][:sp.Len]); err != nil {
			t.Fatal(err)
		}
	}
	if got := reused(t, b, s, kins(first, second)); !slices.Equal(got, []int{0}) {
		t.Errorf("spans %v reused", got)
	}
	if first.asked != 1 || second.asked != 0 {
		t.Errorf("asked %d and %d times", first.asked, second.asked)
	}
}

func TestReuseNot(t *testing.T) {
	t.Parallel()
	zTOC, tar := bottle(t, "zTOC", mixed...), bottle(t, "tar", mixed...)
	k := kinOf(bottle(t, "tar", mixed...))
	if got := reused(t, zTOC, newShelf(zTOC.x), kins(k)); got != nil || k.asked != 0 {
		t.Errorf("without digests of data: spans %v reused, asked %d times", got, k.asked)
	}
	in, _ := InPlace(tar.x, bytes.NewReader(tar.blob))
	l := tar.open(t, &wire{}, in, Options{Donors: kins(k)})
	if l.readReused(0, make([]byte, tar.x.Spans[0].Len)) || k.asked != 0 {
		t.Error("reused what lies here")
	}
	if got := reused(t, tar, newShelf(tar.x), kins(kinOf(zTOC))); got != nil {
		t.Errorf("from digests of a blob: spans %v reused", got)
	}
}

// TestReuseFullStore: what cannot be kept is served.
func TestReuseFullStore(t *testing.T) {
	t.Parallel()
	b := bottle(t, "estargz", mixed...)
	s := newShelf(b.x)
	s.putErr = errFull
	l := b.open(t, &wire{}, s, Options{Donors: kins(kinOf(b))})
	p := make([]byte, b.x.Spans[0].Len)
	if !l.readReused(0, p) || !bytes.Equal(p, b.space[:len(p)]) {
		t.Error("not reused")
	}
}

// FuzzDonor: whatever a donor says of itself, what is taken from it is right.
func FuzzDonor(f *testing.F) {
	b := bottle(f, "estargz", mixed...)
	for _, form := range []string{"estargz shared members", "gzip"} {
		f.Add(bottle(f, form, mixed...).x.Encode())
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		file = append(make([]byte, 0, len(file)+8), file...)
		if len(file) >= 24 {
			copy(file, "PEELLAYR")
			binary.LittleEndian.PutUint32(file[8:], indexVersion)
			binary.LittleEndian.PutUint64(file[16:], uint64(len(file)))
		}
		reused(t, b, newShelf(b.x), kins(&kin{file: file, space: b.space}))
	})
}

func TestSeek(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		rows := make([]DigestRef, rnd.IntN(40))
		for i := range rows {
			rows[i].Prefix = rnd.Uint64N(30)
		}
		byPrefix := func(d DigestRef, key uint64) int { return cmp.Compare(d.Prefix, key) }
		slices.SortFunc(rows, func(a, b DigestRef) int { return byPrefix(a, b.Prefix) })
		key := rnd.Uint64N(32)
		want, _ := slices.BinarySearchFunc(rows, key, byPrefix)
		at := rnd.IntN(want + 1)
		if got := seek(rows, at, key); got != want {
			t.Fatalf("%v: %d from %d on is at %d, not %d", rows, key, at, got, want)
		}
	}
}

func TestLandmark(t *testing.T) {
	t.Parallel()
	raw := filledTar(t, mixed)
	for _, tc := range []struct {
		name string
		o    []estargz.Option
		want func(x *Index) int64
	}{
		{"none are wanted", nil, func(*Index) int64 { return NoLandmark }},
		{"two are wanted", []estargz.Option{estargz.WithPrioritizedFiles([]string{"f0006", "f0009"})}, func(x *Index) int64 {
			end := int64(0)
			for _, name := range []string{"/f0006", "/f0009"} {
				in := files(x)[name]
				_, last := x.chunksIn(in.Addr, in.Size)
				i, _ := slices.BinarySearchFunc(x.Spans, uint32(last-1), func(s Span, c uint32) int { return int(s.Chunks.First) - int(c) })
				end = max(end, x.Spans[i].Off+x.Spans[i].CLen)
			}
			return end
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, d := stargz(t, raw, append(tc.o, estargz.WithChunkSize(64<<10))...)
			x, err := ReadIndex(t.Context(), &blob{bytes: p}, d)
			if err != nil {
				t.Fatal(err)
			}
			if want := tc.want(x); x.Info.Landmark != want {
				t.Errorf("landmark at %d, want %d", x.Info.Landmark, want)
			}
			again, err := Decode(x.AsProved("").Encode())
			if err != nil || again.Info.Landmark != x.Info.Landmark {
				t.Errorf("decoded: %v, %v", again, err)
			}
			if files(x)["/.no.prefetch.landmark"].Mode != 0 {
				t.Error("a landmark is shown")
			}
		})
	}
	if x := bottle(t, "gzip", mixed...).x; x.Info.Landmark != 0 {
		t.Errorf("gzip: landmark at %d", x.Info.Landmark)
	}
}

// TestFilesOfTables: tables of contents name the same digests as a pass finds.
func TestFilesOfTables(t *testing.T) {
	t.Parallel()
	known := func(x *Index) map[string][32]byte {
		out := make(map[string][32]byte)
		for _, f := range x.Files {
			if x.Inodes[f.Inode].Size > 0 {
				out[x.path(f.Inode, "")] = f.SHA256
			}
		}
		return out
	}
	want := known(bottle(t, "gzip", mixed...).x)
	for _, form := range []string{"estargz", "zstd:chunked"} {
		if got := known(bottle(t, form, mixed...).x); len(got) != 12 || len(got) != len(want) {
			t.Errorf("%s: %d files, want %d", form, len(got), len(want))
		} else {
			for name, sum := range got {
				if sum != want[name] {
					t.Errorf("%s: %s has another digest", form, name)
				}
			}
		}
	}
}

// mappedKin is a kin whose index is mapped each time, as that of a cache.
type mappedKin struct {
	kin
	path string
}

func (k *mappedKin) Index() ([]byte, func() error, error) {
	m, err := flat.Map(k.path)
	if err != nil {
		return nil, nil, err
	}
	return m.Bytes(), m.Close, nil
}

// BenchmarkReuseAmong200 is what the first missing span of a layer of ten
// thousand files costs where 200 layers as long have nothing in common with it,
// or are other versions of it without data.
func BenchmarkReuseAmong200(b *testing.B) {
	x, err := Decode(manyFiles(b, 10_000, 0).Encode())
	if err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name string
		seed func(i int) uint64
	}{{"strangers", func(i int) uint64 { return uint64(i + 1) }}, {"versions", func(int) uint64 { return 0 }}} {
		b.Run(bb.name, func(b *testing.B) {
			dir := b.TempDir()
			var donors []Donor
			for i := range 200 {
				k := &mappedKin{kin{has: func(int) bool { return false }}, filepath.Join(dir, strconv.Itoa(i))}
				if err := os.WriteFile(k.path, manyFiles(b, 10_000, bb.seed(i)).Encode(), 0o600); err != nil {
					b.Fatal(err)
				}
				donors = append(donors, k)
			}
			s := newShelf(x)
			b.ResetTimer()
			for b.Loop() {
				if errs := newQuest(x, s).among(donors); errs != nil {
					b.Fatal(errs)
				}
			}
		})
	}
}

// manyFiles is the index of n files of 100 bytes with made-up digests.
func manyFiles(t testing.TB, n int, seed uint64) *Index {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 5))
	c := newTOC(int64(n) * 60)
	for i := range n {
		var sum [32]byte
		for k := range 4 {
			binary.LittleEndian.PutUint64(sum[8*k:], rnd.Uint64())
		}
		e := tocEntry{}
		e.Name, e.Type, e.Size, e.Offset = "d/f"+string(rune('a'+i%26))+hexSum(sum[:])[:8], "reg", 100, int64(i)*60
		e.Digest = sha256Digest(sum).String()
		if err := c.add(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.closeFile(); err != nil {
		t.Fatal(err)
	}
	x, err := c.index(InfoInput{Blob: "sha256:aa", BlobSize: int64(n) * 60, Format: FormatEstargz, Trust: Claimed})
	if err != nil {
		t.Fatal(err)
	}
	return x
}
