package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// Sparse files in tars. archive/tar reads their maps in order to fill the
// holes, but does not tell them; we need the map alone, and read it again from
// the header blocks (GNU tar manual, "Storing Sparse Files"; tar(5)).

var errSparse = errors.New("sparse map")

// Where the old GNU format has its map: entries of 12 bytes offset and 12
// bytes length, then a byte that says whether another block of them follows.
const (
	gnuSparseAt, gnuSparseEntries       = 386, 4 // in the header
	gnuSparseExtAt, gnuSparseExtEntries = 0, 21  // in a block that follows it
)

// setSparse replaces the header's data by the pieces of a sparse file, if it
// is one.
func (e *tarEntry) setSparse(h *Header) error {
	version := e.h.PAXRecords["GNU.sparse.major"] + "." + e.h.PAXRecords["GNU.sparse.minor"]
	list := e.h.PAXRecords["GNU.sparse.map"]
	old := e.h.Typeflag == tar.TypeGNUSparse
	// What archive/tar does not take for a sparse file is none.
	if !old && version != "1.0" && version != "0.0" && version != "0.1" && (version != "." || list == "") {
		return nil
	}
	main, err := mainHeader(e.head)
	if err != nil {
		return err
	}
	if e.phys, err = e.physicalSize(main[:tarBlock]); err != nil {
		return err
	}
	var numbers []int64
	switch {
	case old:
		numbers, err = oldMap(main)
	case version == "1.0":
		numbers, err = textMap(main[tarBlock:])
		// The map stands in the data, and is counted as such.
		e.phys -= e.data - (e.start + int64(len(e.head)-len(main)) + tarBlock)
	default:
		numbers, err = commaMap(list)
	}
	if err != nil {
		return err
	}
	h.Extents, err = sparseExtents(numbers, e.data, e.phys)
	return err
}

// mainHeader returns the blocks of an entry from its own header on, without
// the extended headers before it.
func mainHeader(head []byte) ([]byte, error) {
	for len(head) >= tarBlock {
		switch head[156] {
		case tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			n, err := number(head[124:136])
			if err != nil || n < 0 || n > int64(len(head)) {
				return nil, errSparse
			}
			head = head[min(int64(len(head)), tarBlock+align(n)):]
		default:
			return head, nil
		}
	}
	return nil, errSparse
}

// physicalSize returns how many bytes the tar holds of the file.
func (e *tarEntry) physicalSize(header []byte) (int64, error) {
	n, err := number(header[124:136])
	if size := e.h.PAXRecords["size"]; size != "" {
		n, err = strconv.ParseInt(size, 10, 64)
	}
	if err != nil || n < 0 {
		return 0, errSparse
	}
	return n, nil
}

// number parses a number of a header: octal text, or, if the highest bit is
// set, a big-endian binary.
func number(b []byte) (int64, error) {
	if b[0]&0x80 == 0 {
		text := strings.Trim(string(b), " \x00")
		if text == "" {
			return 0, nil
		}
		return strconv.ParseInt(text, 8, 64)
	}
	n := int64(b[0] & 0x7f)
	for _, c := range b[1:] {
		if n >= 1<<55 {
			return 0, errSparse
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}

// oldMap reads the map of the old GNU format from the header and the blocks
// after it.
func oldMap(blocks []byte) ([]int64, error) {
	var numbers []int64
	at, entries := gnuSparseAt, gnuSparseEntries
	for {
		if len(blocks) < tarBlock {
			return nil, errSparse
		}
		for i := range entries {
			b := blocks[at+24*i:][:24]
			if b[0] == 0 {
				break
			}
			off, err1 := number(b[:12])
			n, err2 := number(b[12:])
			if err1 != nil || err2 != nil {
				return nil, errSparse
			}
			numbers = append(numbers, off, n)
		}
		if blocks[at+24*entries] == 0 {
			return numbers, nil
		}
		blocks = blocks[tarBlock:]
		at, entries = gnuSparseExtAt, gnuSparseExtEntries
	}
}

// textMap reads the map of PAX format 1.0: decimal lines, their count first.
func textMap(data []byte) ([]int64, error) {
	line := func() (int64, error) {
		text, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			return 0, errSparse
		}
		data = rest
		return strconv.ParseInt(string(text), 10, 64)
	}
	count, err := line()
	if err != nil || count < 0 || count > int64(len(data)) {
		return nil, errSparse
	}
	numbers := make([]int64, 2*count)
	for i := range numbers {
		if numbers[i], err = line(); err != nil {
			return nil, errSparse
		}
	}
	return numbers, nil
}

// commaMap reads the map of PAX formats 0.0 and 0.1.
func commaMap(list string) ([]int64, error) {
	var numbers []int64
	for text := range strings.SplitSeq(list, ",") {
		if list == "" {
			break
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, errSparse
		}
		numbers = append(numbers, n)
	}
	if len(numbers)%2 != 0 {
		return nil, errSparse
	}
	return numbers, nil
}

// sparseExtents lays the pieces of a file, offset and length in turn, end to
// end from addr on, where the tar holds phys bytes of them.
func sparseExtents(numbers []int64, addr, phys int64) ([]Extent, error) {
	extents := []Extent{}
	for i := 0; i < len(numbers); i += 2 {
		off, n := numbers[i], numbers[i+1]
		if off < 0 || n < 0 || n > phys {
			return nil, errSparse
		}
		if n > 0 {
			extents = append(extents, Extent{Off: off, Addr: addr, Len: n})
		}
		addr, phys = addr+n, phys-n
	}
	return extents, nil
}
