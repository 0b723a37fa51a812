package cache

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
)

func openCache(t testing.TB) *Cache {
	t.Helper()
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func openStore(t testing.TB, c *Cache, l layout) *Store {
	t.Helper()
	s, err := c.Store(testKey(), l.size(), l.spans())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func testKey() digest.Digest { return digest.FromString("layer") }

// layout holds the addresses of a layer's spans, and its size.
type layout []int64

// newLayout returns n spans of uneven lengths up to most bytes.
func newLayout(n int, most int64) layout {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	l := make(layout, n+1)
	for i := range n {
		l[i+1] = l[i] + 1 + r.Int64N(most)
	}
	return l
}

func (l layout) spans() int  { return len(l) - 1 }
func (l layout) size() int64 { return l[len(l)-1] }

// bytes returns what the spans [first, first+n) hold. No byte is zero, so that
// a hole never passes for data.
func (l layout) bytes(first, n int) []byte {
	b := make([]byte, l[first+n]-l[first])
	for i := range b {
		addr := l[first] + int64(i)
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], uint64(addr/8)*0x9e3779b97f4a7c15)
		b[i] = word[addr%8] | 1
	}
	return b
}

func (l layout) put(s *Store, span int) error {
	return s.Put(span, l[span], l.bytes(span, 1))
}

// read reads spans whole.
func (l layout) read(s *Store, first, n int) ([]byte, bool, error) {
	p := make([]byte, l[first+n]-l[first])
	ok, err := s.Read(p, l[first], first, n)
	return p, ok, err
}
