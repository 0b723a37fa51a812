package layer

import "sync"

const (
	maxStreams = 16      // sequential readers of one layer that are told apart
	maxAhead   = 8 << 20 // bytes of the address space that are read ahead of one reader
)

// streams recognizes sequential readers and says what to read ahead of them.
// What it holds is guesswork that costs nothing but speed when wrong.
type streams struct {
	mu    sync.Mutex // guards what follows
	clock uint64
	table [maxStreams]reader
}

// reader is one sequential reader.
type reader struct {
	next  int64  // the address behind its last read
	read  int64  // bytes read in sequence
	ahead int64  // addresses below have been asked for
	used  uint64 // by the clock; 0 for a free row
}

// advance takes note of a read of [addr, addr+size) and returns the spans
// [first, first+n) that should be fetched ahead, usually none. A reader gets
// ahead as much as twice what it has read in sequence, so that a stray second
// read costs little, in portions of at least half of that, so that requests
// stay few.
func (s *streams) advance(spans []Span, addr, size int64) (first, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	row := s.rowLocked(addr)
	if row.used == 0 || row.next != addr {
		*row = reader{next: addr + size, read: size, ahead: addr + size, used: s.clock}
		return 0, 0
	}
	row.next, row.read, row.used = addr+size, row.read+size, s.clock
	row.ahead = max(row.ahead, row.next)
	window := min(2*row.read, maxAhead)
	if row.ahead-row.next > window/2 {
		return 0, 0
	}
	first, n = spansWithin(spans, row.ahead, row.next+window)
	if n > 0 {
		last := &spans[first+n-1]
		row.ahead = last.Addr + last.Len
	}
	return first, n
}

// rowLocked returns the stream that goes on at addr, else the one that has
// been idle for longest.
func (s *streams) rowLocked(addr int64) *reader {
	oldest := &s.table[0]
	for i := range s.table {
		row := &s.table[i]
		if row.used != 0 && row.next == addr {
			return row
		}
		if row.used < oldest.used {
			oldest = row
		}
	}
	return oldest
}
