package fs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/internal/flat"
	"github.com/peelfs/peel/layer"
)

// zeros is tree.Data without what lies at address 25.
type zeros struct{}

var errThere = errors.New("no such luck")

func (zeros) ReadAt(_ context.Context, _ int, p []byte, addr int64) (int, error) {
	if addr <= 25 && 25 < addr+int64(len(p)) {
		return 0, errThere
	}
	clear(p)
	return len(p), nil
}

// sparse is an image with the file "d/f" of 100 bytes: a hole of 10, 20 bytes at
// address 5, a hole of 10, 10 bytes at address 40, a hole of 50. "d/g" is 7 bytes
// at address 25.
func sparse(t *testing.T) *tree.Tree {
	t.Helper()
	b := layer.NewBuilder()
	for _, h := range []layer.Header{
		{Name: "d", Mode: unix.S_IFDIR | 0o755},
		{Name: "d/f", Mode: unix.S_IFREG | 0o644, Size: 100, Extents: []layer.Extent{{Off: 10, Addr: 5, Len: 20}, {Off: 40, Addr: 40, Len: 10}}},
		{Name: "d/g", Mode: unix.S_IFREG | 0o644, Size: 7, Addr: 25},
	} {
		if err := b.Add(&h); err != nil {
			t.Fatal(err)
		}
	}
	info := layer.InfoInput{Blob: digest.FromString("blob"), BlobSize: 64, AddrSize: 64, Format: layer.FormatTar, Trust: layer.Proved}
	x, err := b.Index(info, layer.Cut{Spans: []layer.Span{{Len: 64, CLen: 64, Chunks: flat.Range{Count: 1}}}, Chunks: []layer.Chunk{{Len: 64}}})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := tree.Merge([]*layer.Index{x})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func row(t *testing.T, tr *tree.Tree, path string) uint32 {
	t.Helper()
	r, err := tr.Walk(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// traced is a table whose reads are traced to w.
func traced(t *testing.T, w io.Writer) (*table, *test.Hook) {
	t.Helper()
	log, hook := test.NewNullLogger()
	tb := newTable(sparse(t), zeros{}, func(uint32, error) {})
	tb.trace = newTracer(w, logrus.NewEntry(log))
	return tb, hook
}

func TestTraceLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tb, hook := traced(t, &out)
	f, g := row(t, tb.tree, "d/f"), row(t, tb.tree, "d/g")
	tb.trace.begin()
	tb.trace.answered()
	for _, r := range []struct {
		row     uint32
		off, n  int64
		want    int
		wantErr error
	}{
		{row: f, off: 0, n: 200, want: 100},
		{row: f, off: 12, n: 4, want: 4},
		{row: f, off: 60, n: 10, want: 10},
		{row: g, off: 0, n: 7, wantErr: errThere},
	} {
		n, err := tb.trace.read(t.Context(), tb, r.row, make([]byte, r.n), r.off)
		if n != r.want || !errors.Is(err, r.wantErr) {
			t.Errorf("%+v: %d, %v", r, n, err)
		}
	}
	tb.trace.close()
	want := []TraceLine{
		{Path: "d/f", Len: 100, Addr: 5, From: "store"},
		{Path: "d/f", Off: 12, Len: 4, Addr: 7, From: "store"},
		{Path: "d/f", Off: 60, Len: 10, Addr: -1, From: "none"},
		{Path: "d/g", Len: 7, Addr: 25, From: "store", Error: "no such luck"},
	}
	var got []TraceLine
	for in := json.NewDecoder(&out); in.More(); {
		var l TraceLine
		if err := in.Decode(&l); err != nil {
			t.Fatal(err)
		}
		if l.T < 0 || l.T > 60 || l.Millis < 0 {
			t.Errorf("%+v", l)
		}
		got = append(got, l)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(TraceLine{}, "T", "Millis")); diff != "" {
		t.Error(diff)
	}
	if e := hook.LastEntry(); e != nil {
		t.Errorf("logged %s", e.Message)
	}
}

// stuck is a writer that takes nothing until it is let go.
type stuck struct {
	reached chan struct{} // gets one for each Write
	let     chan struct{}
	lines   int
}

func (s *stuck) Write(p []byte) (int, error) {
	s.reached <- struct{}{}
	<-s.let
	s.lines += bytes.Count(p, []byte{'\n'})
	return len(p), nil
}

// Reads go on while the writer is stuck; the lines that find no room are
// counted and told.
func TestTraceNeverWaits(t *testing.T) {
	t.Parallel()
	const beyond = 100
	w := &stuck{reached: make(chan struct{}, traceQueue+beyond+1), let: make(chan struct{})}
	tb, hook := traced(t, w)
	f := row(t, tb.tree, "d/f")
	tb.trace.begin()
	read := func() {
		if n, err := tb.trace.read(t.Context(), tb, f, make([]byte, 4), 10); n != 4 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	read()
	<-w.reached // and the first line has left the queue
	for range traceQueue + beyond {
		read()
	}
	close(w.let)
	tb.trace.close()
	if n := tb.trace.lost.Load(); n != beyond || w.lines != 1+traceQueue {
		t.Errorf("%d lines lost, %d written", n, w.lines)
	}
	told := hook.AllEntries()
	if len(told) != 2 || told[1].Data["lost"] != int64(beyond) {
		t.Errorf("told %v", told)
	}
	read() // of somebody late: the tracer is closed, which harms nobody
}

type brimful struct {
	bytes.Buffer
	left int
}

var errFull = errors.New("no space left")

func (f *brimful) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errFull
	}
	return f.Buffer.Write(p)
}

// A disk that is full ends the trace, and nothing else.
func TestTraceOnFullDisk(t *testing.T) {
	t.Parallel()
	w := &brimful{left: 1}
	tb, hook := traced(t, w)
	f := row(t, tb.tree, "d/f")
	const reads = 5000
	tb.trace.begin()
	for range reads {
		if n, err := tb.trace.read(t.Context(), tb, f, make([]byte, 4), 10); n != 4 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	tb.trace.close()
	written := int64(strings.Count(w.String(), "\n"))
	if n := tb.trace.lost.Load(); written == 0 || n+written != reads || !strings.HasSuffix(w.String(), "}\n") {
		t.Errorf("%d lines lost, %d written", n, written)
	}
	told := hook.AllEntries()
	if len(told) != 2 {
		t.Fatalf("told %v", told)
	}
	if err, _ := told[0].Data[logrus.ErrorKey].(error); !errors.Is(err, errFull) {
		t.Errorf("told %v", told[0].Data)
	}
}

func TestFilesAt(t *testing.T) {
	t.Parallel()
	tr := sparse(t)
	got := filesAt(tr, []spot{{addr: 5}, {addr: 24}, {addr: 25}, {addr: 31}, {addr: 32}, {addr: 45}, {layer: 1, addr: 5}})
	want := []file{{"/d/f", 10}, {"/d/f", 29}, {"/d/g", 0}, {"/d/g", 6}, {}, {"/d/f", 45}, {}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(file{})); diff != "" {
		t.Error(diff)
	}
}
