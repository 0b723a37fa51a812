package layer

import (
	"errors"
	"math/bits"
	"slices"
)

const (
	// maxWanted bounds how many chunks of a layer are looked for in others. With
	// places to find them at, each takes 34 bytes.
	maxWanted = 1 << 20
	// maxTwins is how many equal chunks or files of a donor are looked at for one
	// that is there.
	maxTwins = 16
	// maxWork bounds a quest, which somebody waits for: no donor is asked after
	// so many digests were passed over, some tens of milliseconds. One that is
	// looked up counts as lookUp of these.
	maxWork = 8 << 20
	lookUp  = 16
)

// quest is a search in other layers for chunks that a layer is missing.
type quest struct {
	x       *Index
	missing []uint64    // a bit for each chunk
	left    int         // how many are set
	work    int         // done so far, see maxWork
	wanted  []DigestRef // of missing chunks, and of files that have some; in order
	sieve   []uint64    // a bit is set for the beginnings of wanted
	coarse  int         // by how much they are shifted
	lenders []Lender
	places  []loan
}

func newQuest(x *Index, store Store) *quest {
	q := &quest{x: x, missing: make([]uint64, (len(x.Chunks)+63)/64)}
	for i := range x.Spans {
		c := x.Spans[i].Chunks
		if q.left >= maxWanted || store.Has(i) {
			continue
		}
		for k := c.First; k < c.First+c.Count; k++ {
			q.missing[k/64] |= 1 << (k % 64)
		}
		q.left += int(c.Count)
	}
	q.wanted = make([]DigestRef, 0, q.left)
	for _, d := range x.Digests {
		if q.wants(d) {
			q.wanted = append(q.wanted, d)
		}
	}
	// 16 bits for each let one in 16 pass that is not wanted.
	log := bits.Len(uint(len(q.wanted))) + 4
	q.coarse, q.sieve = 64-log, make([]uint64, 1<<max(log-6, 0))
	for _, d := range q.wanted {
		at := d.Prefix >> q.coarse
		q.sieve[at/64] |= 1 << (at % 64)
	}
	return q
}

func (q *quest) lacks(chunk uint32) bool { return q.missing[chunk/64]&(1<<(chunk%64)) != 0 }

// wants reports whether a chunk is missing, or one of a file.
func (q *quest) wants(d DigestRef) bool {
	if d.File == 0 {
		return q.lacks(d.Row)
	}
	for _, e := range q.x.dataOf(&q.x.Inodes[q.x.Files[d.Row].Inode]) {
		for c, end := q.x.chunksIn(e.Addr, e.Len); c < end; c++ {
			if q.lacks(uint32(c)) {
				return true
			}
		}
	}
	return false
}

// among asks donors until nothing is missing, or it takes too long, and returns
// what was wrong with some of them.
func (q *quest) among(donors []Donor) (errs []error) {
	for _, d := range donors {
		if q.left == 0 || q.work > maxWork {
			break
		}
		if err := q.ask(d); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// asked is a donor that is being asked.
type asked struct {
	*giving
	donor  Donor
	lender Lender // opened when some digest is alike
	row    uint32 // of lender
}

// ask looks up what is wanted in a donor's digests.
func (q *quest) ask(d Donor) error {
	file, release, err := d.Index()
	if err != nil {
		return err
	}
	g, err := skim(file)
	if err == nil && g.info.Digests == OfData {
		before := q.left
		if err = q.look(&asked{giving: g, donor: d}); q.left < before {
			q.wanted = slices.DeleteFunc(q.wanted, func(d DigestRef) bool { return !q.wants(d) })
		}
	}
	return errors.Join(err, release())
}

// look goes through both lists of digests side by side: the shorter one by one,
// and the other by leaps.
func (q *quest) look(a *asked) error {
	if len(q.wanted) < len(a.digests)/8 {
		return q.leap(a)
	}
	q.work += len(a.digests)
	at, last, twins := 0, uint64(0), 0
	for i := range a.digests {
		p := a.digests[i].Prefix
		if bit := p >> q.coarse; q.sieve[bit/64]&(1<<(bit%64)) == 0 {
			continue
		}
		if at = seek(q.wanted, at, p); at == len(q.wanted) {
			return nil
		}
		if twins++; p != last {
			last, twins = p, 1
		}
		if twins > maxTwins {
			continue
		}
		if err := q.match(a, q.wanted[at:], a.digests[i]); err != nil {
			return err
		}
	}
	return nil
}

func (q *quest) leap(a *asked) error {
	q.work += lookUp * len(q.wanted)
	at := 0
	for i := range q.wanted {
		p := q.wanted[i].Prefix
		if i > 0 && p == q.wanted[i-1].Prefix {
			continue
		}
		at = seek(a.digests, at, p)
		for _, d := range a.digests[at:min(at+maxTwins, len(a.digests))] {
			if d.Prefix != p {
				break
			}
			if err := q.match(a, q.wanted[i:], d); err != nil {
				return err
			}
		}
	}
	return nil
}

// match takes what d is of for those at the head of wanted that are alike.
func (q *quest) match(a *asked, wanted []DigestRef, d DigestRef) error {
	if wanted[0].Prefix != d.Prefix {
		return nil
	}
	q.work += lookUp
	if a.lender == nil {
		lender, err := a.donor.Lender(a.info.AddrSize, len(a.spans))
		if err != nil {
			return err
		}
		a.lender, a.row = lender, uint32(len(q.lenders))
		q.lenders = append(q.lenders, lender)
	}
	// Most of what matches is not there, in layers that were read in part.
	if d.File == 0 && len(a.spans) == len(a.chunks) && !a.lender.Has(int(d.Row), 1) {
		return nil
	}
	sum, there := a.content(d)
	for _, w := range wanted {
		if w.Prefix != d.Prefix {
			break
		}
		if *q.x.digest(w) != sum {
			continue
		}
		q.fill(a, w, there)
	}
	return nil
}

// fill takes the missing chunks of a chunk or file from the same content there.
func (q *quest) fill(a *asked, w DigestRef, there []Extent) {
	if w.File == 0 {
		q.take(a, w.Row, 0, there)
		return
	}
	for _, e := range q.x.dataOf(&q.x.Inodes[q.x.Files[w.Row].Inode]) {
		for c, end := q.x.chunksIn(e.Addr, e.Len); c < end; c++ {
			q.take(a, uint32(c), e.Off+q.x.Chunks[c].Addr-e.Addr, there)
		}
	}
}

// take notes where a chunk is that begins at off of the content there, if the
// donor has it and nobody else does.
func (q *quest) take(a *asked, chunk uint32, off int64, there []Extent) {
	n := int64(q.x.Chunks[chunk].Len)
	if addr, ok := within(there, off, n); ok && q.lacks(chunk) && a.has(a.lender, addr, n) {
		q.places = append(q.places, loan{chunk: chunk, lender: a.row, addr: addr})
		q.missing[chunk/64] &^= 1 << (chunk % 64)
		q.left--
	}
}

// within returns the address of the bytes [off, off+n) of some content, if they
// are all in one extent.
func within(extents []Extent, off, n int64) (int64, bool) {
	for _, e := range extents {
		if e.Off <= off && off-e.Off <= e.Len-n {
			return e.Addr + off - e.Off, true
		}
	}
	return 0, false
}

// seek returns the first of rows from at on whose digest does not begin with
// less than prefix. The fewer are passed over, the quicker.
func seek(rows []DigestRef, at int, prefix uint64) int {
	step := 1
	for at+step < len(rows) && rows[at+step].Prefix < prefix {
		at += step
		step *= 2
	}
	end := min(at+step, len(rows))
	for at < end {
		if mid := int(uint(at+end) / 2); rows[mid].Prefix < prefix {
			at = mid + 1
		} else {
			end = mid
		}
	}
	return at
}
