package flat

import "unsafe"

// Str is a string in a Pool.
type Str struct{ Off, Len uint32 }

// Range is the half-open run of records [First, First+Count) of some table.
type Range struct{ First, Count uint32 }

// In reports whether the range lies within a table of n records.
func (r Range) In(n int) bool { return uint64(r.First)+uint64(r.Count) <= uint64(n) }

// Pool holds the bytes of the strings of a file.
type Pool []byte

// String returns s without copying it; it lives as long as the pool's bytes.
func (p Pool) String(s Str) string {
	b := p[s.Off : s.Off+s.Len]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// Holds reports whether s lies within the pool.
func (p Pool) Holds(s Str) bool { return uint64(s.Off)+uint64(s.Len) <= uint64(len(p)) }

// PoolBuilder collects strings, each once. Its total is bounded by the 4 GiB
// that a Str can address; callers bound what they add.
type PoolBuilder struct {
	bytes Pool
	known map[string]Str
}

// Add returns where s stands in the pool.
func (b *PoolBuilder) Add(s string) Str {
	if s == "" {
		return Str{}
	}
	if at, ok := b.known[s]; ok {
		return at
	}
	if b.known == nil {
		b.known = make(map[string]Str)
	}
	at := Str{Off: uint32(len(b.bytes)), Len: uint32(len(s))}
	b.bytes = append(b.bytes, s...)
	b.known[s] = at
	return at
}

// Pool returns the collected strings.
func (b *PoolBuilder) Pool() Pool { return b.bytes }
