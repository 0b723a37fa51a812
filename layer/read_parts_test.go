package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a Source that takes its time and goes wrong as told. Faults are
// counted from the first request, 1.
type wire struct {
	blob  []byte
	delay time.Duration // before a body's first byte
	pace  time.Duration // before each further read of a body
	piece int           // bytes of a body's read at most; 0 for any number
	fail  func(request int64) error
	cut   func(request int64) bool // the body ends half-way
	flip  func(request int64) bool // one bit in the middle of the body is wrong
	whole bool                     // there are no byte ranges

	requests, bytes, faults atomic.Int64
	refused                 atomic.Int64 // requests of ranges where there are none
	open                    atomic.Int64 // bodies not closed
}

var (
	errWire     = errors.New("connection reset")
	errNoRanges = fmt.Errorf("a host that serves no ranges: %w", errdefs.ErrNotImplemented)
)

func (w *wire) Size() int64 { return int64(len(w.blob)) }

func (w *wire) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n <= 0 || off+n > w.Size() {
		return nil, fmt.Errorf("range [%d, +%d) of %d", off, n, w.Size())
	}
	request := w.requests.Add(1)
	if w.whole && n < w.Size() {
		w.refused.Add(1)
		return nil, errNoRanges
	}
	if w.fail != nil {
		if err := w.fail(request); err != nil {
			w.faults.Add(1)
			return nil, err
		}
	}
	data := w.blob[off : off+n]
	if w.flip != nil && w.flip(request) {
		w.faults.Add(1)
		data = bytes.Clone(data)
		data[n/2] ^= 0x10
	}
	if w.cut != nil && w.cut(request) {
		w.faults.Add(1)
		data = data[:n/2]
	}
	w.open.Add(1)
	return &wireBody{w: w, wait: w.delay, left: data, done: ctx.Done()}, nil
}

type wireBody struct {
	w    *wire
	wait time.Duration
	left []byte
	done <-chan struct{}
}

func (b *wireBody) Read(p []byte) (int, error) {
	if b.wait > 0 {
		select {
		case <-b.done:
			return 0, context.Canceled
		case <-time.After(b.wait):
		}
	}
	b.wait = b.w.pace
	if len(b.left) == 0 {
		return 0, io.EOF
	}
	if b.w.piece > 0 {
		p = p[:min(len(p), b.w.piece)]
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	b.w.bytes.Add(int64(n))
	return n, nil
}

func (b *wireBody) Close() error {
	b.w.open.Add(-1)
	return nil
}

// shelf is a Store in memory.
type shelf struct {
	spans []Span

	mu      sync.Mutex // guards what follows
	data    [][]byte
	putErr  error
	readErr error
	puts    int
}

func newShelf(x *Index) *shelf { return &shelf{spans: x.Spans, data: make([][]byte, len(x.Spans))} }

func (s *shelf) Has(span int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data[span] != nil
}

func (s *shelf) Read(p []byte, addr int64, first, n int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readErr != nil {
		return false, s.readErr
	}
	for i := first; i < first+n; i++ {
		if s.data[i] == nil {
			return false, nil
		}
	}
	for i := first; i < first+n; i++ {
		at := s.spans[i].Addr
		copy(p[max(at-addr, 0):], s.data[i][max(addr-at, 0):])
	}
	return true, nil
}

func (s *shelf) Put(span int, addr int64, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.putErr != nil {
		return s.putErr
	}
	if addr != s.spans[span].Addr || int64(len(data)) != s.spans[span].Len {
		return fmt.Errorf("span %d put with %d bytes at %d", span, len(data), addr)
	}
	s.puts++
	s.data[span] = bytes.Clone(data)
	return nil
}

// attic is a shelf with bytes from before the last boot.
type attic struct {
	*shelf
	old       [][]byte
	confirmed atomic.Int64
}

func (a *attic) Recheck(span int, _ int64, p []byte) (bool, error) {
	return a.old[span] != nil && copy(p, a.old[span]) == len(p), nil
}

func (a *attic) Confirm(span int) {
	a.confirmed.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.data[span] = a.old[span]
}

// sample layers, each as blob, index and address space.
type bottled struct {
	x     *Index
	blob  []byte
	space []byte
}

// forms are the ways in which bottle makes a layer.
func forms() []string {
	return []string{"estargz", "estargz shared members", "zstd:chunked", "tar", "gzip", "zstd"}
}

// ways are forms and those that have to be read in a way of their own.
func ways() []string { return append(forms(), "zTOC", "resident") }

// bottle makes a layer of the given form with files of the given sizes, filled
// with bytes that compress to about half.
func bottle(t testing.TB, form string, sizes ...int) *bottled {
	t.Helper()
	key := fmt.Sprint(form, sizes)
	made, ok := cellar.Load(key)
	if !ok {
		made, _ = cellar.LoadOrStore(key, makeBottle(t, form, sizes))
	}
	b := made.(*bottled) //nolint:forcetypeassert // nothing else is stored
	own := &bottled{copyIndex(t, b.x), bytes.Clone(b.blob), bytes.Clone(b.space)}
	if form == "resident" {
		reside(own.x)
	}
	return own
}

// cellar has bottles by form and sizes, since making them takes most of the time.
var cellar sync.Map //nolint:gochecknoglobals // of tests

func makeBottle(t testing.TB, form string, sizes []int) *bottled {
	t.Helper()
	raw := filledTar(t, sizes)
	switch form {
	case "zTOC":
		return bottleZTOC(t, sizes...)
	case "resident":
		form = "gzip"
	case "estargz":
		return bottleTOC(t, raw, nil, estargz.WithCompressionLevel(gzip.BestSpeed))
	case "estargz shared members":
		return bottleTOC(t, raw, nil, estargz.WithCompressionLevel(gzip.BestSpeed), estargz.WithMinChunkSize(100<<10))
	case "zstd:chunked":
		notes := make(map[string]string)
		return bottleTOC(t, raw, notes, estargz.WithCompression(&zstdCompression{
			Compressor: zstdchunked.Compressor{CompressionLevel: zstd.SpeedFastest, Metadata: notes},
		}))
	}
	b := map[string]func() []byte{
		"tar": func() []byte { return raw }, "gzip": func() []byte { return gzipped(t, raw) }, "zstd": func() []byte { return zstded(t, raw) },
	}[form]()
	var st stage
	x, err := Stream(t.Context(), &wire{blob: b}, descriptor(b, mediaTar, nil), digest.FromBytes(raw), StreamOptions{Stage: &st})
	if err != nil {
		t.Fatal(err)
	}
	return &bottled{x, b, st.Bytes()}
}

type zstdCompression struct {
	zstdchunked.Decompressor
	zstdchunked.Compressor
}

// bottleTOC converts a tar to a form with a table of contents; notes is where
// the compressor leaves annotations, if it does. The address space is made from
// the tar, which knows nothing of chunks.
func bottleTOC(t testing.TB, raw []byte, notes map[string]string, o ...estargz.Option) *bottled {
	t.Helper()
	made, err := estargz.Build(io.NewSectionReader(bytes.NewReader(raw), 0, int64(len(raw))), append(o, estargz.WithChunkSize(64<<10))...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(made)
	if err = errors.Join(err, made.Close()); err != nil {
		t.Fatal(err)
	}
	media := mediaZstd
	if notes == nil {
		media, notes = mediaGzip, map[string]string{estargz.TOCJSONDigestAnnotation: made.TOCDigest().String()}
	}
	x, err := ReadIndex(t.Context(), &wire{blob: b}, descriptor(b, media, notes))
	if err != nil {
		t.Fatal(err)
	}
	space := make([]byte, x.Info.AddrSize)
	found := files(x)
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return &bottled{x, b, space}
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, space[found["/"+h.Name].Addr:][:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
}

func filledTar(t testing.TB, sizes []int) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, size := range sizes {
		data := make([]byte, size+16)
		for j := 0; j < size; j += 16 {
			for bits, k := rnd.Uint64(), j; k < j+16; bits, k = bits>>4, k+1 {
				data[k] = "etaoin shrdlu.,\n"[bits&15]
			}
		}
		data = data[:size]
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("f%04d", i), Mode: 0o644, Size: int64(size)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (q *quota) taken() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}

// exactly is for layers that fetch nothing on a guess.
func exactly() Options { return Options{Traffic: NewTraffic(TrafficOptions{NoGuess: true})} }

// open returns a Layer over parts that is closed with the test, when it must
// have let go of all it took.
func (b *bottled) open(t testing.TB, w *wire, s Store, o Options) *Layer {
	t.Helper()
	w.blob = b.blob
	l := New(b.x, w, s, o)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if tr := l.traffic; o.Traffic == nil && tr.memory.taken()+tr.decoders.taken()+int64(tr.reading) != 0 {
			t.Error("memory or decoders still taken after Close")
		}
		if n := w.open.Load(); n != 0 {
			t.Errorf("%d bodies still open after Close", n)
		}
	})
	return l
}
