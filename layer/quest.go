package layer

import "errors"

const (
	// maxWanted bounds how many chunks of a layer are looked for in others. With
	// places to find them at, each takes 32 bytes.
	maxWanted = 1 << 20
	// maxTwins is how many equal chunks, or files, of a donor are looked at for
	// one that is there.
	maxTwins = 16
)

// quest is a search in other layers for chunks that a layer is missing.
type quest struct {
	x       *Index
	bits    []uint64 // of the chunks still wanted
	left    int      // how many
	chunks  []ChunkDigest
	files   []uint32 // rows in Files: those with wanted chunks; nil before they are looked for
	lenders []Lender
	places  []loan
}

func newQuest(x *Index, store Store) *quest {
	q := &quest{x: x, bits: make([]uint64, (len(x.Chunks)+63)/64)}
	for i := range x.Spans {
		c := x.Spans[i].Chunks
		if q.left >= maxWanted || store.Has(i) {
			continue
		}
		for k := c.First; k < c.First+c.Count; k++ {
			q.bits[k/64] |= 1 << (k % 64)
		}
		q.left += int(c.Count)
	}
	q.chunks = make([]ChunkDigest, 0, q.left)
	for _, d := range x.Digests {
		if q.wants(d.Chunk) {
			q.chunks = append(q.chunks, d)
		}
	}
	return q
}

func (q *quest) wants(chunk uint32) bool { return q.bits[chunk/64]&(1<<(chunk%64)) != 0 }

// ask looks up what is wanted in a donor's tables, which are in the same order.
func (q *quest) ask(d Donor) error {
	file, release, err := d.Index()
	if err != nil {
		return err
	}
	g, err := skim(file)
	if err == nil && g.info.Digests == OfData {
		err = q.look(&asked{giving: g, donor: d})
	}
	return errors.Join(err, release())
}

// asked is a donor that is being asked.
type asked struct {
	*giving
	donor  Donor
	lender Lender // opened when the donor is known to have something
	row    uint32 // of lender
}

func (q *quest) look(a *asked) error {
	if err := q.lookForChunks(a); err != nil || q.left == 0 || len(a.files) == 0 {
		return err
	}
	return q.lookForFiles(a)
}

// lookForChunks goes through both lists of digests side by side, and drops what
// it finds, and what was found in files, from that of the wanted ones.
func (q *quest) lookForChunks(a *asked) error {
	rest := q.chunks[:0]
	at := 0
	for k := range q.chunks {
		d := &q.chunks[k]
		if !q.wants(d.Chunk) {
			continue
		}
		at = seek(a.digests, at, d.Prefix, func(d *ChunkDigest) uint64 { return d.Prefix })
		found, err := q.chunk(a, d, at)
		if err != nil {
			return err
		}
		if !found {
			rest = append(rest, *d)
		}
	}
	q.chunks = rest
	return nil
}

// chunk looks for a chunk among the digests from row at on.
func (q *quest) chunk(a *asked, d *ChunkDigest, at int) (bool, error) {
	c := &q.x.Chunks[d.Chunk]
	for ; at < len(a.digests) && a.digests[at].Prefix == d.Prefix; at++ {
		row := a.digests[at].Chunk
		if int(row) >= len(a.chunks) || a.chunks[row].SHA256 != c.SHA256 || a.chunks[row].Len != c.Len {
			continue
		}
		if ok, err := q.take(a, d.Chunk, a.chunks[row].Addr); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// take notes that a chunk is at addr, if it is.
func (q *quest) take(a *asked, chunk uint32, addr int64) (bool, error) {
	if a.lender == nil {
		lender, err := a.donor.Lender(a.info.AddrSize, len(a.spans))
		if err != nil {
			return false, err
		}
		a.lender, a.row = lender, uint32(len(q.lenders))
		q.lenders = append(q.lenders, lender)
	}
	if !a.has(a.lender, addr, int64(q.x.Chunks[chunk].Len)) {
		return false, nil
	}
	q.places = append(q.places, loan{chunk: chunk, lender: a.row, addr: addr})
	q.bits[chunk/64] &^= 1 << (chunk % 64)
	q.left--
	return true, nil
}

// lookForFiles looks for whole files that the donor has, be they cut up
// otherwise.
func (q *quest) lookForFiles(a *asked) error {
	if q.files == nil {
		q.files = []uint32{}
		for i := range q.x.Files {
			if q.wantsOf(&q.x.Files[i]) {
				q.files = append(q.files, uint32(i))
			}
		}
	}
	rest := q.files[:0]
	at := 0
	for _, row := range q.files {
		f := &q.x.Files[row]
		prefix := prefixOf(&f.SHA256)
		at = seek(a.files, at, prefix, func(f *File) uint64 { return prefixOf(&f.SHA256) })
		wants := true
		for k := at; wants && k < min(at+maxTwins, len(a.files)) && prefixOf(&a.files[k].SHA256) == prefix; k++ {
			if a.files[k].SHA256 != f.SHA256 {
				continue
			}
			if err := q.file(a, f, a.files[k].Inode); err != nil {
				return err
			}
			wants = q.wantsOf(f)
		}
		if wants {
			rest = append(rest, row)
		}
	}
	q.files = rest
	return nil
}

// wantsOf reports whether a file has chunks that are wanted.
func (q *quest) wantsOf(f *File) bool {
	for _, e := range q.x.dataOf(&q.x.Inodes[f.Inode]) {
		for c, end := q.x.chunksIn(e.Addr, e.Len); c < end; c++ {
			if q.wants(uint32(c)) {
				return true
			}
		}
	}
	return false
}

// file takes those chunks of a file that the donor's inode in a row has.
func (q *quest) file(a *asked, f *File, row uint32) error {
	theirs := a.dataOf(row)
	for _, e := range q.x.dataOf(&q.x.Inodes[f.Inode]) {
		for c, end := q.x.chunksIn(e.Addr, e.Len); c < end; c++ {
			if !q.wants(uint32(c)) {
				continue
			}
			n := int64(q.x.Chunks[c].Len)
			addr, ok := within(theirs, e.Off+q.x.Chunks[c].Addr-e.Addr, n)
			if !ok {
				continue
			}
			if _, err := q.take(a, uint32(c), addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// within returns the address of a file's bytes [off, off+n), if they are all in
// one extent.
func within(extents []Extent, off, n int64) (int64, bool) {
	for _, e := range extents {
		if e.Off <= off && off-e.Off <= e.Len-n {
			return e.Addr + off - e.Off, true
		}
	}
	return 0, false
}

// seek returns the first of rows from at on whose key is not less than key.
// Rows are in order of their keys; the fewer are passed over, the quicker.
func seek[T any](rows []T, at int, key uint64, of func(*T) uint64) int {
	step := 1
	for at+step < len(rows) && of(&rows[at+step]) < key {
		at += step
		step *= 2
	}
	end := min(at+step, len(rows))
	for at < end {
		if mid := int(uint(at+end) / 2); of(&rows[mid]) < key {
			at = mid + 1
		} else {
			end = mid
		}
	}
	return at
}
