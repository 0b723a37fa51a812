package cache

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

func TestStorePutRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spans int
		most  int64
	}{
		{"no span", 0, 0},
		{"one span", 1, 100},
		{"a word of spans", 64, 100},
		{"a word and one", 65, 1000},
		{"several words", 300, 64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLayout(tt.spans, tt.most)
			want := l.bytes(0, l.spans())
			s := openStore(t, openCache(t), l)
			for i, span := range rand.Perm(tt.spans) {
				if _, ok, err := l.read(s, span, 1); ok || err != nil || s.Has(span) {
					t.Fatalf("span %d before Put: %v, %v", span, ok, err)
				}
				if err := l.put(s, span); err != nil {
					t.Fatal(err)
				}
				if s.Present() != i+1 {
					t.Fatalf("%d present, want %d", s.Present(), i+1)
				}
			}
			for first := range tt.spans + 1 {
				for n := range min(tt.spans-first+1, 130) {
					p, ok, err := l.read(s, first, n)
					if !ok || err != nil || !bytes.Equal(p, want[l[first]:l[first+n]]) {
						t.Fatalf("spans [%d, +%d): %v, %v", first, n, ok, err)
					}
				}
			}
		})
	}
}

func TestStoreBadArguments(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(4, 10)
	s := openStore(t, c, l)
	for _, bad := range []struct {
		span int
		addr int64
		n    int
	}{{-1, 0, 1}, {4, 0, 1}, {0, -1, 1}, {0, l.size(), 1}, {0, 0, int(l.size()) + 1}} {
		p := make([]byte, bad.n)
		_, readErr := s.Read(p, bad.addr, bad.span, 1)
		_, recheckErr := s.Recheck(bad.span, bad.addr, p)
		for _, err := range []error{readErr, recheckErr, s.Put(bad.span, bad.addr, p)} {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	}
	if s.Has(-1) || s.Has(4) {
		t.Error("has spans that do not exist")
	}
	s.Confirm(-1)
	s.Confirm(4)
	for _, bad := range []struct {
		size  int64
		spans int
	}{{-1, 1}, {1, -1}, {1, maxSpans + 1}} {
		if _, err := c.Store(testKey(), bad.size, bad.spans); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestStoreClosed(t *testing.T) {
	t.Parallel()
	l := newLayout(4, 10)
	s := openStore(t, openCache(t), l)
	if err := l.put(s, 1); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	_, _, readErr := l.read(s, 1, 1)
	_, recheckErr := s.Recheck(1, l[1], l.bytes(1, 1))
	for _, err := range []error{readErr, recheckErr, l.put(s, 1)} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	s.Confirm(1)
	if s.Has(1) || s.Present() != 0 {
		t.Error("closed store has spans")
	}
}

func TestStoreOpenedTwice(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(10, 10000)
	a, b := openStore(t, c, l), openStore(t, c, l)
	if err := l.put(a, 3); err != nil {
		t.Fatal(err)
	}
	if p, ok, err := l.read(b, 3, 1); !ok || err != nil || !bytes.Equal(p, l.bytes(3, 1)) {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestStoreFolderDeletedWhileOpen(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(10, 10000)
	s := openStore(t, c, l)
	if err := l.put(s, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	if err := l.put(s, 1); err != nil {
		t.Fatal(err)
	}
	if p, ok, err := l.read(s, 0, 2); !ok || err != nil || !bytes.Equal(p, l.bytes(0, 2)) {
		t.Errorf("%v, %v", ok, err)
	}
}

// A process that cuts data or have under a live store takes spans away; it must
// not make the store return other bytes, or die.
func TestStoreFilesCutWhileOpen(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"data", "have"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t)
			l := newLayout(10, 10000)
			s := openStore(t, c, l)
			if err := l.put(s, 9); err != nil {
				t.Fatal(err)
			}
			dir, err := c.layerDir(testKey())
			if err != nil {
				t.Fatal(err)
			}
			cut(name, 0)(t, dir)
			if _, ok, err := l.read(s, 9, 1); ok {
				t.Errorf("read of a span that is gone: %v", err)
			}
			err = l.put(s, 9)
			if p, ok, _ := l.read(s, 9, 1); ok != (err == nil) || ok && !bytes.Equal(p, l.bytes(9, 1)) {
				t.Errorf("after Put: %v, %v", ok, err)
			}
			s.Has(9)
			s.Present()
			s.Confirm(9)
		})
	}
}

func TestStoreCloseWaits(t *testing.T) {
	t.Parallel()
	l := layout{0, 1 << 20}
	s := openStore(t, openCache(t), l)
	if err := l.put(s, 0); err != nil {
		t.Fatal(err)
	}
	var reading, done sync.WaitGroup
	for range 4 {
		reading.Add(1)
		done.Go(func() {
			_, ok, err := l.read(s, 0, 1)
			reading.Done()
			for ; ok; _, ok, err = l.read(s, 0, 1) {
			}
			if !errors.Is(err, fs.ErrClosed) {
				t.Error(err)
			}
		})
	}
	reading.Wait()
	closeStore(t, s)
	done.Wait()
}

func TestStoreConcurrent(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(200, 3000)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := fill(c, l, uint64(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// fill opens the store, puts what is missing in random order and reads at
// random in between.
func fill(c *Cache, l layout, seed uint64) (err error) {
	s, err := c.Store(testKey(), l.size(), l.spans())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r := rand.New(rand.NewPCG(seed, 0))
	want := l.bytes(0, l.spans())
	for _, span := range r.Perm(l.spans()) {
		if !s.Has(span) {
			if err := s.Put(span, l[span], want[l[span]:l[span+1]]); err != nil {
				return err
			}
		}
		for range 8 {
			first := r.IntN(l.spans())
			n := 1 + r.IntN(min(4, l.spans()-first))
			p, ok, err := l.read(s, first, n)
			if err != nil {
				return err
			}
			if ok && !bytes.Equal(p, want[l[first]:l[first+n]]) {
				return errors.New("wrong bytes")
			}
		}
	}
	return nil
}

func TestStoreReadAllocatesNothing(t *testing.T) {
	c := openCache(t)
	l := layout{0, 64 << 10, 128 << 10}
	s := openStore(t, c, l)
	for span := range 2 {
		if err := l.put(s, span); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 128<<10)
	allocs := testing.AllocsPerRun(100, func() {
		if ok, err := s.Read(p, 0, 0, 2); !ok || err != nil || !s.Has(1) {
			t.Fatal(ok, err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkStoreRead128K(b *testing.B) {
	l := make(layout, 1025)
	for i := range l {
		l[i] = int64(i) << 14
	}
	s := openStore(b, openCache(b), l)
	for span := range l.spans() {
		if err := l.put(s, span); err != nil {
			b.Fatal(err)
		}
	}
	p := make([]byte, 128<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		first := i * 8 % l.spans()
		if ok, err := s.Read(p, l[first], first, 8); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkStorePut4K(b *testing.B) {
	l := make(layout, 1025)
	for i := range l {
		l[i] = int64(i) << 12
	}
	s := openStore(b, openCache(b), l)
	p := l.bytes(0, 1)
	b.SetBytes(int64(len(p)))
	for i := 0; b.Loop(); i++ {
		span := i % l.spans()
		if err := s.Put(span, l[span], p); err != nil {
			b.Fatal(err)
		}
	}
}
