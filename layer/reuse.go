package layer

import (
	"os"
	"sync"
)

// Donor is another layer that was read on this machine. Nothing that it says
// is believed: what comes from it is verified as if it came from the source.
type Donor interface {
	// Index returns the file of the layer's index, which may be used until
	// release is called.
	Index() (file []byte, release func() error, err error)
	// Lender opens the layer's data, of size bytes in so many spans.
	Lender(size int64, spans int) (Lender, error)
}

// Lender has bytes of a layer.
type Lender interface {
	// Has reports whether all of the spans [first, first+n) were there when the
	// Lender was opened.
	Has(first, n int) bool
	// Lend fills p with the bytes at addr and reports true, or false if there are
	// none now. If there are, it calls use, unless that is nil, while nobody can
	// take them away from file, where they lie at addr.
	Lend(p []byte, addr int64, use func(file *os.File) error) (bool, error)
}

// Adopter is a Store that can share a span's place on disk with another file.
type Adopter interface {
	// Adopt is Put of bytes that lie at from in file, too.
	Adopt(span int, addr int64, data []byte, file *os.File, from int64) error
}

// reuse finds what a layer is missing in other layers.
type reuse struct {
	donors func() []Donor // nil: there are none
	once   sync.Once      // guards what follows
}

// readReused fills p with span i if a donor has all of it, and stores it. It
// reports whether it did.
func (l *Layer) readReused(i int, p []byte) bool { return false }
