//go:build unix

package cache

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func openStage(t testing.TB, c *Cache) *Stage {
	t.Helper()
	g, err := c.Stage(t.Context(), testKey())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// names returns the files in the layer's folder.
func names(t *testing.T, c *Cache) []string {
	t.Helper()
	dir, err := c.layerDir(testKey())
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestStageCommit(t *testing.T) {
	t.Parallel()
	zeros := func(n int) []byte { return make([]byte, n) }
	ones := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	for _, tt := range []struct {
		name   string
		data   []byte
		blocks int // of holeSize bytes, that must be allocated at most, but for one of the file system itself
	}{
		{"empty", nil, 0},
		{"zeros", zeros(100 * holeSize), 0},
		{"zeros and some", zeros(100*holeSize + 10), 1},
		{"data", ones(10*holeSize + 10), 11},
		{"zeros at the end", append(ones(holeSize), zeros(100*holeSize)...), 1},
		{"data at the end", append(zeros(100*holeSize), 1), 1},
		{"islands", bytes.Repeat(append(ones(holeSize), zeros(9*holeSize)...), 10), 10},
		{"zeros off the grid", append(ones(100), append(zeros(50*holeSize), ones(100)...)...), 2},
	} {
		for _, step := range []int{1 << 20, 32 << 10, 5000, 512} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				c := openCache(t)
				g := openStage(t, c)
				for p := tt.data; len(p) > 0; p = p[min(step, len(p)):] {
					if n, err := g.Write(p[:min(step, len(p))]); n != min(step, len(p)) || err != nil {
						t.Fatal(n, err)
					}
				}
				l := layout{0, int64(len(tt.data))}
				if err := g.Commit(l.size(), 1); err != nil {
					t.Fatal(err)
				}
				s := openStore(t, c, l)
				if p, ok, err := l.read(s, 0, 1); !ok || err != nil || !bytes.Equal(p, tt.data) {
					t.Errorf("%v, %v", ok, err)
				}
				if step%holeSize == 0 && allocated(t, s.data) > int64((tt.blocks+1)*holeSize) {
					t.Errorf("%d bytes are allocated, want at most %d blocks", allocated(t, s.data), tt.blocks)
				}
			})
		}
	}
}

func TestStageRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	c := openCache(t)
	g := openStage(t, c)
	var want []byte
	for range 300 {
		p := make([]byte, r.IntN(3*holeSize))
		if r.IntN(2) == 0 {
			for i := range p {
				p[i] = byte(r.IntN(3)) // few zeros in a row
			}
		}
		want = append(want, p...)
		if _, err := g.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	l := layout{0, int64(len(want))}
	if err := g.Commit(l.size(), 1); err != nil {
		t.Fatal(err)
	}
	if p, ok, err := l.read(openStore(t, c, l), 0, 1); !ok || err != nil || !bytes.Equal(p, want) {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestStageDiscarded(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	if _, err := g.Write([]byte("unproved")); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stage.lock"}, names(t, c)); diff != "" {
		t.Error(diff)
	}
	if _, err := g.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if err := g.Commit(8, 1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Commit after Close: %v", err)
	}
	if s := openStore(t, c, layout{0, 8}); s.Present() != 0 {
		t.Error("discarded bytes are in the store")
	}
}

func TestStageCommitOfOtherSize(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	g := openStage(t, c)
	if _, err := g.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		size  int64
		spans int
	}{{7, 1}, {9, 1}, {8, -1}, {8, maxSpans + 1}} {
		if err := g.Commit(bad.size, bad.spans); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := g.Commit(8, 1); err != nil {
		t.Error(err)
	}
}

// What is open keeps what it had; who opens next sees what was committed.
func TestStageCommitUnderOpenStore(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(5, 3000)
	old := openStore(t, c, l)
	if err := l.put(old, 0); err != nil {
		t.Fatal(err)
	}
	g := openStage(t, c)
	want := bytes.Repeat([]byte{7}, int(l.size()))
	if _, err := g.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := g.Commit(l.size(), l.spans()); err != nil {
		t.Fatal(err)
	}
	if p, ok, err := l.read(old, 0, 1); !ok || err != nil || !bytes.Equal(p, l.bytes(0, 1)) {
		t.Errorf("old: %v, %v", ok, err)
	}
	if old.Has(1) {
		t.Error("the old store has what was committed elsewhere")
	}
	if p, ok, err := l.read(openStore(t, c, l), 0, 5); !ok || err != nil || !bytes.Equal(p, want) {
		t.Errorf("new: %v, %v", ok, err)
	}
	if diff := cmp.Diff([]string{"data", "have", "lock", "stage.lock"}, names(t, c)); diff != "" {
		t.Error(diff)
	}
}

func TestStageWaits(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	synctest.Test(t, func(t *testing.T) {
		g, err := c.Stage(t.Context(), testKey())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := c.Stage(ctx, testKey()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		time.AfterFunc(time.Minute, func() {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		})
		next := openStage(t, c)
		if waited := time.Since(start) - 2*time.Minute; waited < 0 || waited > maxWait {
			t.Errorf("waited %v", waited)
		}
		if _, err := next.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if err := next.Commit(1, 1); err != nil {
			t.Error(err)
		}
		// The index is not written yet, so others still have to wait.
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.Stage(ctx, testKey()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after Commit: %v", err)
		}
	})
}

// allocated returns how many bytes f occupies on disk.
func allocated(t *testing.T, f *os.File) int64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("%T", fi.Sys())
	}
	return st.Blocks * 512
}
