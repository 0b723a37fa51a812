package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/peelfs/peel/internal/testkit"
	"github.com/peelfs/peel/layer"
)

// wired is a Registry that counts the bytes of layers, and whose layers a test
// can change.
type wired struct {
	*hub
	change func(off int64, body io.Reader) io.Reader // nil: nothing

	mu    sync.Mutex // guards what follows
	sent  int64
	order []digest.Digest // of layers, as they were first asked for a range
}

func (w *wired) Layer(ref reference.Named, d ocispec.Descriptor) layer.Source {
	return wire{w.hub.Layer(ref, d), d.Digest, w}
}

type wire struct {
	layer.Source
	of digest.Digest
	w  *wired
}

func (s wire) ReadRange(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	s.w.mu.Lock()
	if !slices.Contains(s.w.order, s.of) {
		s.w.order = append(s.w.order, s.of)
	}
	s.w.mu.Unlock()
	body, err := s.Source.ReadRange(ctx, off, n)
	if err != nil {
		return nil, err
	}
	var r io.Reader = body
	if s.w.change != nil {
		r = s.w.change(off, body)
	}
	return reading{counting{r, s.w}, body}, nil
}

type counting struct {
	io.Reader
	w *wired
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.sent += int64(n)
	return n, err
}

// filling is an image of two eStargz layers that is to be filled.
type filling struct {
	*wired
	cache  *depot
	image  *Image
	layers []testkit.Layer
	log    *logtest.Hook
	o      FillOptions
}

func newFilling(t *testing.T) *filling {
	t.Helper()
	f := &filling{wired: &wired{hub: newHub()}}
	var descs []ocispec.Descriptor
	var diffIDs []digest.Digest
	for i, name := range []string{"a", "b"} {
		l := testkit.Encode(t, testkit.Stargz,
			testkit.File(name, testkit.Noise(uint64(i), 300_000)), testkit.File(name+name, testkit.Noise(uint64(10+i), 3000)))
		d := f.put(repo, "layer-"+name, l.Desc.MediaType, l.Blob)
		d.Annotations = l.Desc.Annotations
		f.layers, descs, diffIDs = append(f.layers, l), append(descs, d), append(diffIDs, l.DiffID)
	}
	f.hub.image(t, repo, "v1", diffIDs, nil, descs...)
	f.cache = newDepot(t)
	log, hook := logtest.NewNullLogger()
	f.log = hook
	f.o = FillOptions{
		Registry: f, Cache: f.cache, Spools: filepath.Join(t.TempDir(), "fill"), Tmp: t.TempDir(),
		Progress: &FillProgress{}, Log: logrus.NewEntry(log),
	}
	f.open(t)
	return f
}

// open opens the image, and forgets what was asked for.
func (f *filling) open(t *testing.T) {
	t.Helper()
	traffic := f.o.Yield
	if traffic == nil {
		traffic = layer.NewTraffic(layer.TrafficOptions{NoGuess: true})
	}
	m, err := Open(t.Context(), repo+":v1", Options{Registry: f, Cache: f.cache, Log: f.o.Log, Traffic: traffic})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	f.image = m
	f.came()
	f.hub.log()
}

// came is how many bytes of layers have come since it was last asked.
func (f *filling) came() int64 {
	f.wired.mu.Lock()
	defer f.wired.mu.Unlock()
	n := f.sent
	f.sent, f.order = 0, nil
	return n
}

// blobs is how many bytes the layers have.
func (f *filling) blobs() (n int64) {
	for _, l := range f.layers {
		n += l.Desc.Size
	}
	return n
}

// states are those of the layers, and what the cache believes of them.
func (f *filling) states(t *testing.T) []string {
	t.Helper()
	var out []string
	for i, l := range f.o.Progress.Layers() {
		x, mapped, err := open(f.cache, "index", f.image.Key(i), layer.Decode)
		if err != nil {
			t.Fatal(err)
		}
		whole := ""
		if f.image.Layers()[i].Present() == x.Info.AddrSize {
			whole = ", whole"
		}
		out = append(out, fmt.Sprintf("%s, %s%s", l.State, x.Info.Trust, whole))
		if l.Proved != (x.Info.Trust == layer.Proved) {
			t.Errorf("layer %d: proved is %t", i, l.Proved)
		}
		if err := mapped.Close(); err != nil {
			t.Error(err)
		}
	}
	return out
}

// left lists the files of spools and proofs.
func (f *filling) left(t *testing.T) []string {
	t.Helper()
	a, err := filepath.Glob(filepath.Join(f.o.Spools, "*"))
	b, berr := filepath.Glob(filepath.Join(f.o.Tmp, "*"))
	if err := errors.Join(err, berr); err != nil {
		t.Fatal(err)
	}
	return append(a, b...)
}

// warnings are those logged.
func (f *filling) warnings() (out []string) {
	for _, e := range f.log.AllEntries() {
		if e.Level <= logrus.WarnLevel {
			out = append(out, fmt.Sprintf("%s: %v", e.Message, e.Data["error"]))
		}
	}
	return out
}

// done checks that all is here and proved, and nothing left behind.
func (f *filling) done(t *testing.T) {
	t.Helper()
	if d := cmp.Diff([]string{"done, proved, whole", "done, proved, whole"}, f.states(t)); d != "" {
		t.Errorf("layers (-want +got):\n%s", d)
	}
	if left := f.left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if w := f.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	for _, l := range f.o.Progress.Layers() {
		if l.Done != l.Total || l.Total == 0 {
			t.Errorf("%d of %d bytes done", l.Done, l.Total)
		}
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	if err := f.image.Fill(t.Context(), f.o); err != nil {
		t.Fatal(err)
	}
	f.done(t)
	if want := []digest.Digest{f.layers[0].Desc.Digest, f.layers[1].Desc.Digest}; !slices.Equal(f.order, want) {
		t.Errorf("layers in the order %v, want %v", f.order, want)
	}
	if n := f.came(); n != f.blobs() {
		t.Errorf("%d bytes came, of %d", n, f.blobs())
	}
	if err := f.image.Fill(t.Context(), f.o); err != nil || f.came() > 0 {
		t.Errorf("again: %v", err)
	}
}

// TestFillOrder: what is read from comes first.
func TestFillOrder(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	if _, err := f.image.ReadAt(t.Context(), 1, make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	f.came()
	if err := f.image.Fill(t.Context(), f.o); err != nil {
		t.Fatal(err)
	}
	if want := []digest.Digest{f.layers[1].Desc.Digest, f.layers[0].Desc.Digest}; !slices.Equal(f.order, want) {
		t.Errorf("layers in the order %v, want %v", f.order, want)
	}
	f.done(t)
}

// TestFillProved: of a layer that is proved, only what is missing is fetched.
func TestFillProved(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	for i, l := range f.image.Layers() {
		x := l.Index().AsProved(f.layers[i].DiffID)
		if err := f.cache.Write("index", f.image.Key(i), x.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	f.open(t)
	if _, err := f.image.ReadAt(t.Context(), 0, make([]byte, 300_000), 0); err != nil {
		t.Fatal(err)
	}
	f.came()
	if err := f.image.Fill(t.Context(), f.o); err != nil {
		t.Fatal(err)
	}
	f.done(t)
	if most := f.layers[1].Desc.Size + 10_000; f.came() > most {
		t.Errorf("more than %d bytes came", most)
	}
}

// TestFillResumes: what a killed fill left is not fetched again, and if it is
// damaged, all is.
func TestFillResumes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		left func(blob []byte) []byte
		sent func(blob, half int64) int64
	}{
		{"half", func(b []byte) []byte { return b[:len(b)/2] }, func(blob, half int64) int64 { return blob - half }},
		{"all", func(b []byte) []byte { return b }, func(int64, int64) int64 { return 0 }},
		{"damaged", func(b []byte) []byte {
			b = bytes.Clone(b[:len(b)/2])
			clear(b[1000:])
			return b
		}, func(blob, half int64) int64 { return 2*blob - half }},
		{"too long", func(b []byte) []byte { return append(bytes.Clone(b), 0) }, func(blob, _ int64) int64 { return blob }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFilling(t)
			blob := f.layers[0].Blob
			d := f.layers[0].Desc.Digest
			if err := os.Mkdir(f.o.Spools, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(f.o.Spools, "sha256-"+d.Encoded()), c.left(blob), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := f.image.Fill(t.Context(), f.o); err != nil {
				t.Fatal(err)
			}
			f.done(t)
			want := c.sent(int64(len(blob)), int64(len(blob)/2)) + f.layers[1].Desc.Size
			if n := f.came(); n != want {
				t.Errorf("%d bytes came, want %d", n, want)
			}
		})
	}
}

// TestFillWrong: a layer that is not what it is claimed to be is told of, not
// proved, and keeps nobody from the others.
func TestFillWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		at   int64 // of the first layer's byte that is wrong
		want string
	}{
		{"where no file is", 4, "claimed, whole"}, // the time in a header of gzip
		{"in a file", 2000, "claimed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFilling(t)
			raw := f.docs[repo+"@"+f.layers[0].Desc.Digest.String()]
			raw[c.at] ^= 1
			err := f.image.Fill(t.Context(), f.o)
			if !errors.Is(err, layer.ErrVerify) {
				t.Errorf("error %v", err)
			}
			if d := cmp.Diff([]string{"failed, " + c.want, "done, proved, whole"}, f.states(t)); d != "" {
				t.Errorf("layers (-want +got):\n%s", d)
			}
			w := f.warnings()
			got := digest.FromBytes(raw).String()
			if len(w) != 1 || !strings.Contains(w[0], f.layers[0].Desc.Digest.String()) || !strings.Contains(w[0], got) {
				t.Errorf("warnings %q, want one with both digests", w)
			}
			if left := f.left(t); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestFillFull: a full disk ends a fill with one line.
func TestFillFull(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	f.cache.full = true
	f.open(t)
	if err := f.image.Fill(t.Context(), f.o); !isFull(err) {
		t.Errorf("error %v", err)
	}
	if w := f.warnings(); len(w) != 1 {
		t.Errorf("warnings: %q", w)
	}
	if left := f.left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if got := f.o.Progress.Layers()[1].State; got != FillWaiting {
		t.Errorf("the second layer is %s", got)
	}
}

func TestIsFull(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"none", nil, false},
		{"another", io.EOF, false},
		{"disk", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, true},
		{"quota", fmt.Errorf("x: %w", syscall.EDQUOT), true},
		{"store", layerError("x", errdefs.ErrResourceExhausted), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := isFull(c.err); got != c.want {
				t.Errorf("%t", got)
			}
		})
	}
}

// TestFillRangeless: a source that turns out to know no ranges is read whole.
func TestFillRangeless(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	f.hub.whole = true
	if err := f.image.Fill(t.Context(), f.o); err != nil {
		t.Fatal(err)
	}
	f.done(t)
}

// TestFillWaits: a registry that is away is asked again.
func TestFillWaits(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	synctest.Test(t, func(t *testing.T) {
		f.mu.Lock()
		f.broken["layer-a"] = errdefs.ErrUnavailable
		f.mu.Unlock()
		began := time.Now()
		back := time.AfterFunc(time.Hour, func() {
			f.hub.mu.Lock()
			defer f.hub.mu.Unlock()
			f.broken["layer-a"] = nil
		})
		defer back.Stop()
		if err := f.image.Fill(t.Context(), f.o); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < time.Hour || took > time.Hour+maxFillWait {
			t.Errorf("it took %s", took)
		}
	})
	f.done(t)
	if n := strings.Count(f.hub.log(), "layer-a"); n > 20 {
		t.Errorf("asked %d times", n)
	}
}

// TestFillCancelled: what has come stays for the next fill.
func TestFillCancelled(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.change = func(_ int64, body io.Reader) io.Reader {
		return io.MultiReader(io.LimitReader(body, 200_000), calling{cancel}, body)
	}
	if err := f.image.Fill(ctx, f.o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if w := f.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	f.change = nil
	if err := f.image.Fill(t.Context(), f.o); err != nil {
		t.Fatal(err)
	}
	f.done(t)
	if most := f.blobs() + fillBuffer; f.came() > most {
		t.Errorf("more than %d bytes came", most)
	}
}

// TestSweepSpools: only what is old goes.
func TestSweepSpools(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := sweepSpools(filepath.Join(dir, "none"), time.Now()); err != nil {
		t.Error(err)
	}
	for name, age := range map[string]time.Duration{"old": 8 * 24 * time.Hour, "new": time.Hour} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweepSpools(dir, time.Now().Add(-staleSpool)); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || !slices.Equal(left, []string{filepath.Join(dir, "new")}) {
		t.Errorf("%q, %v are left", left, err)
	}
}
