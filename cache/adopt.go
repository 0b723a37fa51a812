package cache

import "os"

const (
	// block is what blocks of file systems that share them are multiples or
	// divisors of, in bytes.
	block = 4096
	// leastShared is how many bytes are worth a system call, and an extent of
	// their own.
	leastShared = 64 << 10
)

// Adopt is Put of bytes that are in another file, too, from that offset on.
// Where the file system can, the store shares them with that file rather than
// have its own.
func (s *Store) Adopt(span int, addr int64, data []byte, file *os.File, from int64) error {
	return s.put(span, addr, len(data), func() error { return adopt(s.data, addr, data, file, from) })
}

// adopt writes data, shared with file where that is possible: in whole blocks
// that lie alike in both files.
func adopt(to *os.File, addr int64, data []byte, file *os.File, from int64) error {
	head := (block - addr%block) % block
	n := (int64(len(data)) - head) / block * block
	if (addr-from)%block != 0 || n < leastShared || !shareRange(to, addr+head, file, from+head, n) {
		_, err := to.WriteAt(data, addr)
		return err
	}
	if _, err := to.WriteAt(data[:head], addr); err != nil {
		return err
	}
	_, err := to.WriteAt(data[head+n:], addr+head+n)
	return err
}
