package layer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const traces = "testdata/traces"

// packedTrace is a trace in a file: numbers are differences, spans that are far
// from all reads are left out.
type packedTrace struct {
	Layers [][]int64 `json:"layers"` // by span: bytes skipped in the blob, length there, addresses skipped, length, file, directory, kind
	Reads  [][]int64 `json:"reads"`  // how many reads before this one the one it came after, think, layer, address, size
	Heard  [][]int64 `json:"heard"`  // by layer, see packMentions
	Tail   int64     `json:"tail"`
}

const keptSpans = 420 // on each side of a span that is read

func (t *trace) pack() (p packedTrace) {
	p.Tail = t.Tail
	kept := t.kept()
	for n := range t.Layers {
		p.Layers = append(p.Layers, t.packLayer(n, kept[n]))
		p.Heard = append(p.Heard, t.packMentions(n, kept))
	}
	for k, r := range t.Reads {
		p.Reads = append(p.Reads, []int64{int64(k - r.After), r.Think, int64(r.Layer), r.Addr, r.Size})
	}
	return p
}

// kept says which spans of each layer are kept, and what their numbers are then:
// those near what is read, and those that are mentioned or mention others.
func (t *trace) kept() []map[int]int {
	kept := make([]map[int]int, len(t.Layers))
	for n := range kept {
		kept[n] = make(map[int]int)
	}
	for _, r := range t.Reads {
		spans := t.Layers[r.Layer].spans
		first, count := spansOf(spans, r.Addr, r.Size)
		for i := max(first-keptSpans, 0); i < min(first+count+keptSpans, len(spans)); i++ {
			kept[r.Layer][i] = 0
		}
	}
	for n := range t.Layers {
		for i, all := range t.Layers[n].heard {
			kept[n][i] = 0
			for _, m := range all {
				kept[m.layer][m.span] = 0
			}
		}
	}
	for n := range kept {
		for k, i := range slices.Sorted(maps.Keys(kept[n])) {
			kept[n][i] = k
		}
	}
	return kept
}

func (t *trace) packLayer(n int, kept map[int]int) []int64 {
	l := &t.Layers[n]
	out := []int64{}
	numbers := make(map[uint32]int64)
	number := func(space int, v uint32) int64 {
		if v == None {
			return -1
		}
		v ^= uint32(space) << 30
		if _, ok := numbers[v]; !ok {
			numbers[v] = int64(len(numbers))
		}
		return numbers[v]
	}
	var off, addr int64
	for _, i := range slices.Sorted(maps.Keys(kept)) {
		s, at := &l.spans[i], &l.places[i]
		out = append(out, s.Off-off, s.CLen, s.Addr-addr, s.Len, number(0, at.file), number(1, at.dir), number(2, at.kind))
		off, addr = s.Off+s.CLen, s.Addr+s.Len
	}
	return out
}

func (p *packedTrace) unpack() *trace {
	t := &trace{Tail: p.Tail}
	for _, packed := range p.Layers {
		var l traceLayer
		var off, addr int64
		for s := range slices.Chunk(packed, 7) {
			sp := Span{Off: off + s[0], CLen: s[1], Addr: addr + s[2], Len: s[3]}
			off, addr = sp.Off+sp.CLen, sp.Addr+sp.Len
			l.spans = append(l.spans, sp)
			l.places = append(l.places, place{file: uint32(s[4]), dir: uint32(s[5]), kind: uint32(s[6])})
		}
		t.Layers = append(t.Layers, l)
	}
	for n := range p.Heard {
		t.Layers[n].heard = unpackMentions(p.Heard[n])
	}
	for k, r := range p.Reads {
		t.Reads = append(t.Reads, traceRead{After: k - int(r[0]), Think: r[1], Layer: int(r[2]), Addr: r[3], Size: r[4]})
	}
	return t
}

// recorded returns the traces of testdata, by name.
func recorded(t testing.TB) map[string]*trace {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(traces, "*.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*trace)
	for _, name := range files {
		packed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		var p packedTrace
		if err := json.NewDecoder(z).Decode(&p); err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(name)
		all[base[:len(base)-len(".json.gz")]] = p.unpack()
	}
	return all
}

// BenchmarkRecord makes a trace of testdata from what peel mount --trace wrote while
// the image was at hand:
//
//	PEEL_TRACE=FILE PEEL_LAYOUT=DIR PEEL_TAG=TAG PEEL_TOOK=SECONDS PEEL_NAME=NAME go test -run xxx -bench 'Record$' -benchtime 1x ./layer
func BenchmarkRecord(b *testing.B) {
	name := os.Getenv("PEEL_NAME")
	if name == "" {
		return // benchmarks are run for their figures
	}
	tr, layers := layersOf(b)
	took, err := strconv.ParseFloat(os.Getenv("PEEL_TOOK"), 64)
	if err != nil {
		b.Fatal(err)
	}
	readTrace(b, tr, os.Getenv("PEEL_TRACE"), took)
	tr.mentions(b, layers)
	write(b, name, tr)
}

// layersOf returns the layers of the image that the environment names.
func layersOf(t testing.TB) (*trace, []*Layer) {
	t.Helper()
	tr, layers := &trace{}, []*Layer(nil)
	traffic := NewTraffic(TrafficOptions{})
	dir := os.Getenv("PEEL_LAYOUT")
	for _, d := range layoutLayers(t, dir, os.Getenv("PEEL_TAG")) {
		f, err := os.Open(blobIn(dir, d))
		if err != nil {
			t.Fatal(err)
		}
		src := &fileBlob{f, d.Size}
		l := New(indexOf(t, src, d), src, nil, Options{Traffic: traffic})
		t.Cleanup(func() { _ = errors.Join(l.Close(), f.Close()) })
		layers = append(layers, l)
		tr.Layers = append(tr.Layers, traceLayer{spans: l.x.Spans, places: l.x.places(), heard: make(map[int][]traceMention)})
	}
	return tr, layers
}

func write(t testing.TB, name string, tr *trace) {
	t.Helper()
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err := json.NewEncoder(z).Encode(tr.pack()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(traces, name+".json.gz"), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d reads, %d bytes", name, len(tr.Reads), out.Len())
}

// readTrace takes a read to come after the one that was answered last before it.
func readTrace(t testing.TB, tr *trace, name string, took float64) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	type line struct {
		T     float64
		Layer int
		Addr  int64
		Len   int64
		MS    float64 `json:"ms"`
	}
	var lines []line
	for in := bufio.NewScanner(f); in.Scan(); {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Addr >= 0 && l.Len > 0 {
			lines = append(lines, l)
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return int(max(min((a.T-b.T)*1e9, 1), -1)) })
	begin, last := lines[0].T, 0.0
	for k, l := range lines {
		after, answered := -1, begin
		for j := range k {
			if done := lines[j].T + lines[j].MS/1e3; done <= l.T+50e-6 && done >= answered {
				after, answered = j, done
			}
		}
		x := &tr.Layers[l.Layer]
		end := x.spans[len(x.spans)-1].Addr + x.spans[len(x.spans)-1].Len
		size := min(l.Len, end-l.Addr)
		tr.Reads = append(tr.Reads, traceRead{After: after, Think: max(int64((l.T-answered)*1e6), 0), Layer: l.Layer, Addr: l.Addr, Size: size})
		last = max(last, l.T+l.MS/1e3)
	}
	tr.Tail = max(int64((took-(last-begin))*1e6), 0)
}

func layoutLayers(t testing.TB, dir, tag string) []ocispec.Descriptor {
	t.Helper()
	var index ocispec.Index
	var m ocispec.Manifest
	documentIn(t, filepath.Join(dir, "index.json"), &index)
	i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == tag })
	if i < 0 {
		t.Fatalf("no tag %s in %s", tag, dir)
	}
	documentIn(t, blobIn(dir, index.Manifests[i]), &m)
	return m.Layers
}

func blobIn(dir string, d ocispec.Descriptor) string {
	return filepath.Join(dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

func documentIn(t testing.TB, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fileBlob is a Source in a file.
type fileBlob struct {
	f *os.File
	n int64
}

func (b *fileBlob) Size() int64 { return b.n }

func (b *fileBlob) ReadRange(_ context.Context, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(b.f, off, n)), nil
}

func indexOf(t testing.TB, src *fileBlob, d ocispec.Descriptor) *Index {
	t.Helper()
	x, err := ReadIndex(t.Context(), src, d)
	if err != nil {
		x, err = Stream(t.Context(), src, d, "", StreamOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}
