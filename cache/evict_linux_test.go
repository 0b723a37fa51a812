package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// evict is what an evictor does, in the order that doc.go prescribes.
func (l layout) evict(s *Store, span int) (err error) {
	data, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", s.data.Fd()), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	if err := flock(data, unix.LOCK_EX); err != nil {
		return err
	}
	for _, bitmap := range [][]uint64{s.have.checked, s.have.present} {
		atomic.AndUint64(&bitmap[span/64], ^(uint64(1) << (span % 64)))
	}
	atomic.AddUint64(&s.have.header.generation, 1)
	return unix.Fallocate(int(data.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, l[span], l[span+1]-l[span])
}

// Readers, writers and an evictor meet on a handful of spans; no reader may see
// a hole.
func TestEvictorIsNeverSeen(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := layout{0, 64 << 10, 128 << 10, 192 << 10}
	want := l.bytes(0, 3)
	s := openStore(t, c, l)
	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			span := rand.IntN(3)
			if err := s.Put(span, l[span], want[l[span]:l[span+1]]); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				first := rand.IntN(3)
				p, ok, err := l.read(s, first, 1)
				if err != nil || ok && !bytes.Equal(p, want[l[first]:l[first+1]]) {
					t.Errorf("span %d: a hole was read: %v", first, err)
					stop.Store(true)
				}
				if ok {
					reads.Add(1)
				}
			}
		})
	}
	other := openStore(t, c, l)
	for i := 0; !stop.Load() && (i < 1000 || reads.Load() < 100); i++ {
		if err := l.evict(other, rand.IntN(3)); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}

// An evictor that works between the bits' check and the end of the copy is
// played by the copied bytes: they land on the store's own generation and
// bitmaps.
func TestReadLooksAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		checked uint64 // what the evictor leaves
		want    bool
	}{
		{"the span was evicted", 0, false},
		{"another span was evicted", 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			after := make([]uint64, haveWords(2))
			viewHeader(after).generation = 1
			after[len(after)-1] = tt.checked
			from := unsafe.Offsetof(header{}.generation)
			data := asBytes(after)[from:]
			l := layout{0, int64(len(data)), int64(2 * len(data))}
			s := openStore(t, openCache(t), l)
			if err := s.Put(0, 0, data); err != nil {
				t.Fatal(err)
			}
			ok, err := s.Read(asBytes(s.have.words)[from:], 0, 0, 1)
			if ok != tt.want || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
}

// An evictor sees by the lock on have whether a layer is in use.
func TestOpenStoreIsMarked(t *testing.T) {
	t.Parallel()
	c := openCache(t)
	l := newLayout(2, 10)
	s := openStore(t, c, l)
	second := openStore(t, c, l)
	f, err := os.Open(s.bits.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		if free, err := tryLock(f); free || err != nil {
			t.Errorf("open store is not marked: %v", err)
		}
		closeStore(t, s)
	}
	closeStore(t, second)
	if free, err := tryLock(f); !free || err != nil {
		t.Errorf("closed store is marked: %v", err)
	}
}
