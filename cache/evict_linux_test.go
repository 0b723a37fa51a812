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
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				span := rand.IntN(3)
				if err := s.Put(span, l[span], want[l[span]:l[span+1]]); err != nil {
					t.Error(err)
				}
			}
		})
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
	for i := 0; !stop.Load() && (i < 1000 || reads.Load() < 1000); i++ {
		if err := l.evict(other, rand.IntN(3)); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}
