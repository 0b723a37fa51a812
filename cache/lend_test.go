package cache

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func lenderOf(t testing.TB, c *Cache, l layout) *Lender {
	t.Helper()
	lender, err := c.Lender(testKey(), l.size(), l.spans())
	if err != nil {
		t.Fatal(err)
	}
	return lender
}

func TestLend(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(10, 100)
	s := openStore(t, c, l)
	for _, span := range []int{2, 3, 7} {
		if err := l.put(s, span); err != nil {
			t.Fatal(err)
		}
	}
	lender := lenderOf(t, c, l)
	for _, tt := range []struct {
		first, n int
		want     bool
	}{{2, 1, true}, {2, 2, true}, {2, 3, false}, {7, 1, true}, {0, 1, false}, {9, 2, false}, {-1, 1, false}} {
		if got := lender.Has(tt.first, tt.n); got != tt.want {
			t.Errorf("spans [%d, +%d): %v", tt.first, tt.n, got)
		}
	}
	p := make([]byte, l[4]-l[2])
	used := 0
	ok, err := lender.Lend(p, l[2], func(f *os.File) error {
		used++
		q := make([]byte, len(p))
		if _, err := f.ReadAt(q, l[2]); err != nil || !bytes.Equal(q, p) {
			t.Errorf("the file has other bytes: %v", err)
		}
		return nil
	})
	if !ok || err != nil || used != 1 || !bytes.Equal(p, l.bytes(2, 2)) {
		t.Errorf("%v, %v, used %d times", ok, err, used)
	}
	wrong := errors.New("wrong")
	if ok, err := lender.Lend(p, l[2], func(*os.File) error { return wrong }); ok || !errors.Is(err, wrong) {
		t.Errorf("an error of use: %v, %v", ok, err)
	}
	if ok, err := lender.Lend(p, l.size()-1, nil); ok || err != nil {
		t.Errorf("beyond the end: %v, %v", ok, err)
	}
	if _, err := lender.Lend(p, -1, nil); err == nil {
		t.Error("a negative address")
	}
}

// TestLenderKeepsNobodyAway: a layer can be removed, and another put in its
// place, while it is lent.
func TestLenderKeepsNobodyAway(t *testing.T) {
	t.Parallel()
	c, l := openCache(t), newLayout(10, 100)
	s := openStore(t, c, l)
	if err := l.put(s, 0); err != nil {
		t.Fatal(err)
	}
	lender := lenderOf(t, c, l)
	closeStore(t, s)
	if _, err := c.RemoveStore(testKey()); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, l[1])
	if ok, err := lender.Lend(p, 0, nil); ok || err != nil {
		t.Errorf("after removal: %v, %v", ok, err)
	}
	if _, err := c.Lender(testKey(), l.size(), l.spans()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	openStore(t, c, l)
	if ok, err := lender.Lend(p, 0, nil); !ok || err != nil || !bytes.Equal(p, make([]byte, len(p))) {
		t.Errorf("of an empty store: %v, %v", ok, err)
	}
	if _, err := c.Lender(testKey(), l.size()+1, l.spans()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of another size: got %v", err)
	}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	const long = 300_000
	data := make([]byte, long+3*block)
	for i := range data {
		data[i] = byte(rand.N(255) + 1)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	closed, err := os.Open(path)
	if err != nil || closed.Close() != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		addr, n int64 // of the span
		file    *os.File
		from    int64
	}{
		{"whole blocks", block, 64 * block, file, 2 * block},
		{"alike, with a beginning and an end", block + 5, long, file, 5},
		{"not alike", 7, long, file, 5},
		{"few bytes", block, 100, file, 0},
		{"less than a block that is not at its beginning", 100, 50, file, 100},
		{"as many as are worth it", 1, leastShared + block - 1, file, 1},
		{"of a file that cannot be read", block, 64 * block, closed, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := layout{0, tt.addr, tt.addr + tt.n, tt.addr + tt.n + 2*block}
			s := openStore(t, openCache(t), l)
			for _, span := range []int{0, 2} {
				if err := l.put(s, span); err != nil {
					t.Fatal(err)
				}
			}
			want := data[tt.from:][:tt.n]
			if err := s.Adopt(1, tt.addr, want, tt.file, tt.from); err != nil {
				t.Fatal(err)
			}
			for span, want := range [][]byte{l.bytes(0, 1), want, l.bytes(2, 1)} {
				if got, ok, err := l.read(s, span, 1); !ok || err != nil || !bytes.Equal(got, want) {
					t.Errorf("span %d: %v, %v, wrong bytes or none", span, ok, err)
				}
			}
		})
	}
	s := openStore(t, openCache(t), layout{0, 10})
	if err := s.Adopt(1, 0, data[:10], file, 0); err == nil {
		t.Error("a span that is not")
	}
}

func TestFilled(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	var want []digest.Digest
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		key := digest.FromString(name)
		if name != "b" { // has data only
			if err := c.Write("index", key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if name == "d" { // has an index only
			continue
		}
		s, err := c.Store(key, 10, 1)
		if err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		dir, err := c.layerDir(key)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(-i) * time.Hour)
		if name == "e" {
			at = at.Add(100 * time.Hour)
		}
		if err := os.Chtimes(filepath.Join(dir, "have"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"e", "a", "c"} {
		want = append(want, digest.FromString(name))
	}
	for most := range 5 {
		got, err := c.Filled(most)
		if err != nil || len(got) != min(most, 3) {
			t.Fatalf("at most %d: %v, %v", most, got, err)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("at most %d: %v, want %v", most, got, want)
			}
		}
	}
}

// BenchmarkFilled lists 200 layers, and opens their data.
func BenchmarkFilled(b *testing.B) {
	c := openCache(b)
	l := newLayout(10_000, 100)
	for i := range 200 {
		key := digest.FromString(strconv.Itoa(i))
		if err := c.Write("index", key, []byte("x")); err != nil {
			b.Fatal(err)
		}
		s, err := c.Store(key, l.size(), l.spans())
		if err != nil {
			b.Fatal(err)
		}
		closeStore(b, s)
	}
	for b.Loop() {
		keys, err := c.Filled(256)
		if err != nil || len(keys) != 200 {
			b.Fatal(len(keys), err)
		}
		for _, key := range keys {
			if _, err := c.Lender(key, l.size(), l.spans()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkAdopt compares what it costs to share blocks, or to try, with
// writing.
func BenchmarkAdopt(b *testing.B) {
	const n = 1 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), n/16)
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	s := openStore(b, openCache(b), layout{0, n})
	for _, bb := range []struct {
		name string
		do   func() error
	}{
		{"Put", func() error { return s.Put(0, 0, data) }},
		{"Adopt", func() error { return s.Adopt(0, 0, data, file, 0) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				if err := bb.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
