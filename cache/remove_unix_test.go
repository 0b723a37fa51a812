//go:build unix

package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestRemoveStore(t *testing.T) {
	t.Parallel()
	l := newLayout(20, 10_000)
	for _, tc := range []struct {
		name string
		use  func(*testing.T, *Cache) // what the layer is used for, until the test ends
		free bool
		err  error
	}{
		{name: "not there"},
		{"full", func(t *testing.T, c *Cache) {
			s, err := c.Store(testKey(), l.size(), l.spans())
			if err != nil {
				t.Fatal(err)
			}
			for i := range l.spans() {
				if err := l.put(s, i); err != nil {
					t.Error(err)
				}
			}
			closeStore(t, s)
		}, true, nil},
		{"interrupted", func(t *testing.T, c *Cache) {
			g, err := c.Stage(t.Context(), testKey())
			if err != nil {
				t.Fatal(err)
			}
			_, err = g.Write(l.bytes(0, l.spans()))
			if err := errors.Join(err, g.Note([]byte("here\n")), g.Close()); err != nil {
				t.Error(err)
			}
		}, true, nil},
		{"open", func(t *testing.T, c *Cache) { openStore(t, c, l) }, false, ErrInUse},
		{"streamed", func(t *testing.T, c *Cache) { openStage(t, c) }, false, ErrInUse},
		{"locked", func(t *testing.T, c *Cache) {
			dir, err := c.layerDir(testKey())
			if err != nil {
				t.Fatal(err)
			}
			f, err := acquire(t.Context(), filepath.Join(dir, "lock"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
		}, false, ErrInUse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t)
			if tc.use != nil {
				tc.use(t, c)
			}
			freed, err := c.RemoveStore(testKey())
			if !errors.Is(err, tc.err) || tc.err == nil && err != nil || tc.free != (freed > l.size()/2) {
				t.Fatalf("%d bytes freed, %v", freed, err)
			}
			dir, err := c.layerDir(testKey())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(dir); tc.err == nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder is left: %v", err)
			}
		})
	}
}

// Stores and stages that are opened while their layer is removed are empty, or
// keep it.
func TestRemoveWhileOpened(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(20, 100)
	var users, removers sync.WaitGroup
	var over atomic.Bool
	for range 2 {
		removers.Go(func() {
			for !over.Load() {
				if _, err := c.RemoveStore(testKey()); err != nil && !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
			}
		})
		users.Go(func() {
			for i := range 150 {
				if err := putAndRead(c, l, i%l.spans()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Go(func() {
		for range 30 {
			if err := stageAll(t, c, l); err != nil {
				t.Error(err)
			}
		}
	})
	users.Wait()
	over.Store(true)
	removers.Wait()
}

// stageAll streams a layer.
func stageAll(t *testing.T, c *Cache, l layout) error {
	t.Helper()
	g, err := c.Stage(t.Context(), testKey())
	if err != nil {
		return err
	}
	_, err = g.Write(l.bytes(0, l.spans()))
	return errors.Join(err, g.Commit(l.size(), l.spans()), g.Close())
}

// putAndRead opens a store for one span.
func putAndRead(c *Cache, l layout, span int) error {
	s, err := c.Store(testKey(), l.size(), l.spans())
	if err != nil {
		return err
	}
	err = l.put(s, span)
	p, ok, rerr := l.read(s, span, 1)
	if err == nil && (!ok || !bytes.Equal(p, l.bytes(span, 1))) {
		err = fmt.Errorf("span %d: %v", span, ok)
	}
	return errors.Join(err, rerr, s.Close())
}

func TestKeysAndStored(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(100, 10)
	want := []digest.Digest{digest.FromString("a"), digest.FromString("b")}
	slices.Sort(want)
	for _, kind := range []string{"index", "image/manifest"} {
		if got, err := c.Keys(kind); err != nil || len(got) > 0 {
			t.Errorf("none yet: %v, %v", got, err)
		}
		for _, key := range want {
			if err := c.Write(kind, key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Write("image/config", testKey(), nil); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"index", "image/manifest"} {
		got, err := c.Keys(kind)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	if _, err := c.Stored(testKey(), l.size(), l.spans()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	s := openStore(t, c, l)
	if err := l.put(s, 70); err != nil {
		t.Fatal(err)
	}
	has, err := c.Stored(testKey(), l.size(), l.spans())
	if err != nil {
		t.Fatal(err)
	}
	for _, span := range []int{-1, 0, 70, 71, 100} {
		if has(span) != (span == 70) {
			t.Errorf("span %d: %v", span, has(span))
		}
	}
	if _, err := c.Stored(testKey(), l.size()+1, l.spans()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of another size: %v", err)
	}
}

func TestRefs(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	if got, err := c.Refs(); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	for _, name := range []string{"b", "a", "damaged"} {
		if err := c.SetRef(name, digest.FromString(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(c.refPath("damaged"), []byte(`{"name":"other"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour).Round(time.Second)
	for _, name := range []string{"a", "b"} {
		if err := os.Chtimes(c.refPath(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.TouchRef("b"), c.TouchRef("never resolved")); err != nil {
		t.Error(err)
	}
	got, err := c.Refs()
	if err != nil || len(got) != 2 || got[0].Name != "a" || got[1].Name != "b" || got[1].Digest != digest.FromString("b") {
		t.Fatalf("%v, %v", got, err)
	}
	if !got[0].Used.Equal(old) || time.Since(got[1].Used) > time.Minute || time.Since(got[0].Resolved) > time.Minute {
		t.Errorf("%v", got)
	}
	if err := errors.Join(c.RemoveRef("a"), c.RemoveRef("a")); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Ref("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
