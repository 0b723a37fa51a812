//go:build linux

package testkit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The header of a cached layer's have file, in words of eight bytes; the
// cache's documentation has the rest.
const (
	haveSpans      = 2
	haveSize       = 3
	haveGeneration = 8
	haveBitmaps    = 16
)

// Cached is what the cache has of one layer.
type Cached struct {
	Digest string // hex
	Spans  int64
	Size   int64 // of the address space, bytes
}

// Evict takes every span of every layer out of the cache, the way an evictor
// does while mounts use it, and returns the layers.
func (p *Peel) Evict() []Cached {
	p.t.Helper()
	haves, err := filepath.Glob(filepath.Join(p.Cache, "blobs", "*", "*", "have"))
	if err != nil || len(haves) == 0 {
		p.t.Fatalf("no layer in the cache (%v)", err)
	}
	var out []Cached
	for _, have := range haves {
		c, err := evict(filepath.Dir(have))
		if err != nil {
			p.t.Fatalf("evicting %s: %v", filepath.Dir(have), err)
		}
		out = append(out, c)
	}
	return out
}

// evict clears the bits of all spans, raises the generation, and punches.
func evict(dir string) (c Cached, err error) {
	data, err := os.OpenFile(filepath.Join(dir, "data"), os.O_RDWR, 0)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	words, unmap, err := mapHave(filepath.Join(dir, "have"))
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, unmap()) }()
	if err := unix.Flock(int(data.Fd()), unix.LOCK_EX); err != nil {
		return c, err
	}
	bits := words[haveBitmaps:]
	for i := range bits { // the second bitmap is to be cleared first
		atomic.StoreUint64(&bits[len(bits)-1-i], 0)
	}
	atomic.AddUint64(&words[haveGeneration], 1)
	c = Cached{Digest: filepath.Base(dir), Spans: int64(words[haveSpans]), Size: int64(words[haveSize])}
	if c.Size == 0 {
		return c, nil
	}
	return c, unix.Fallocate(int(data.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, c.Size)
}

func mapHave(name string) (words []uint64, unmap func() error, err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	unmap = func() error { return unix.Munmap(mapped) }
	words = unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mapped))), len(mapped)/8)
	if magic := binary.LittleEndian.AppendUint64(nil, words[0]); string(magic) != "peelhave" {
		return nil, nil, errors.Join(fmt.Errorf("a have file that begins with %q", magic), unmap())
	}
	return words, unmap, nil
}

// Forget drops the kernel's pages of a file, so that the next read of it asks
// the file system.
func Forget(name string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
