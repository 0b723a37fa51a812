package layer

const (
	maxCourses  = 16       // readers of one layer that are told apart
	maxAhead    = 8 << 20  // bytes of the address space that are read ahead of one reader
	maxForeseen = 16       // strides that are foreseen
	courseGap   = 8 << 10  // addresses between files of a tar, which a sequential reader skips
	maxStride   = 64 << 20 // addresses

	sweepFiles = 128 // that a reader has come to in sequence, so that it is expected to read them all
	sweepRest  = 64  // reads after its last one for which that holds
	usualFiles = 16  // of runs of late, for a new one to be expected to go as far
)

// courses recognizes readers that go through a layer in sequence or by strides,
// and says what to fetch ahead of them.
type courses struct {
	clock uint64
	table [maxCourses]track
}

// track is one reader on its course: runs of reads in sequence, that begin one
// stride after another.
type track struct {
	start         int64  // the address where the run began
	next          int64  // the address behind its last read
	read          int64  // bytes read in sequence
	ahead         int64  // addresses below have been asked for
	stride        int64  // from the run before this one, 0 if there is none
	steps         int    // runs that began where they were expected
	length        int64  // bytes of the run before this one
	files         int    // it has come to in sequence
	expected      int64  // bytes that it is expected to read, by those before it
	expectedFiles int    // likewise, files
	span          int    // of its last byte
	used          uint64 // by the clock; 0 for a free row
}

// chart is what courses go through.
type chart struct {
	spans  []Span
	places []place
	room   int64 // bytes of the blob that may be guessed
}

// advance takes note of a read of [addr, addr+size) and appends to ahead the spans
// that should be fetched, usually none, of at most m.room bytes in the blob.
func (c *courses) advance(ahead []int, m chart, addr, size int64) []int {
	c.clock++
	if row := c.sequential(addr); row != nil {
		row.read += size
		row.next, row.used = addr+size, c.clock
		return row.onwards(ahead, m)
	}
	usual, files := c.usual()
	row := c.begin(addr, size)
	row.span, _ = spansOf(m.spans, row.next-1, 1)
	switch {
	case row.steps >= 2:
		return row.stepwise(ahead, m)
	case files >= usualFiles:
		row.expected, row.expectedFiles = usual, files
		return row.onwards(ahead, m)
	}
	return ahead
}

// usual returns how far runs went of late, in bytes and files: who reads many
// files in sequence, jumps, and goes on will do so again. It is nothing while
// few are known.
func (c *courses) usual() (size int64, files int) {
	for i := range c.table {
		if c.table[i].used == 0 {
			return 0, 0
		}
		size += c.table[i].read
		files += c.table[i].files
	}
	return size / maxCourses, files / maxCourses
}

// sweeping reports whether a reader goes through the layer file by file, as
// archivers and scanners do.
func (c *courses) sweeping() bool {
	if _, files := c.usual(); files >= sweepFiles/8 {
		return true
	}
	for i := range c.table {
		if row := &c.table[i]; row.files >= sweepFiles && c.clock-row.used <= sweepRest {
			return true
		}
	}
	return false
}

func (c *courses) sequential(addr int64) *track {
	for i := range c.table {
		row := &c.table[i]
		if row.used != 0 && addr >= row.next && addr-row.next <= courseGap {
			return row
		}
	}
	return nil
}

// begin begins a run: of a reader that was expected here, else of a new one whose
// stride may be from the nearest.
func (c *courses) begin(addr, size int64) *track {
	oldest, nearest := &c.table[0], (*track)(nil)
	for i := range c.table {
		row := &c.table[i]
		if row.used < oldest.used {
			oldest = row
		}
		if row.used == 0 {
			continue
		}
		if row.stride != 0 && row.start+row.stride == addr {
			*row = track{
				start: addr, next: addr + size, read: size, ahead: addr + size, used: c.clock,
				stride: row.stride, steps: row.steps + 1, length: row.next - row.start,
			}
			return row
		}
		if away := distance(row.start, addr); away <= maxStride && (nearest == nil || away < distance(nearest.start, addr)) {
			nearest = row
		}
	}
	begun := track{start: addr, next: addr + size, read: size, ahead: addr + size, used: c.clock}
	if nearest != nil {
		begun.stride, begun.length = addr-nearest.start, nearest.next-nearest.start
	}
	*oldest = begun
	return oldest
}

func distance(a, b int64) int64 { return max(a-b, b-a) }

// onwards: a reader gets ahead as much as twice what it has read in sequence, so
// that a stray second read costs little, in portions of at least half of that, so
// that requests stay few. It is expected to go on to twice as many files as it has
// come to. One that goes by strides stops where it did before.
func (r *track) onwards(ahead []int, m chart) []int {
	for ; r.span < len(m.spans)-1 && m.spans[r.span+1].Addr < r.next; r.span++ {
		if !m.sameFile(r.span, r.span+1) {
			r.files++
		}
	}
	r.ahead = max(r.ahead, r.next)
	window := min(max(2*r.read, r.expected), maxAhead)
	if r.ahead-r.next > window/2 {
		return ahead
	}
	to := r.next + window
	if r.steps > 0 {
		to = min(to, r.start+max(r.length, r.next-r.start))
	}
	first, n := spansWithin(m.spans, r.ahead, to)
	n = m.within(first, n, r.span, max(2*r.files, r.expectedFiles))
	if n == 0 {
		return ahead
	}
	if last := &m.spans[first+n-1]; last.Addr+last.Len-r.ahead < (r.ahead-r.next)/2 {
		return ahead // what may be spent has grown by a little: later, a portion that is worth a request
	}
	for i := first; i < first+n; i++ {
		ahead = append(ahead, i)
		r.ahead = m.spans[i].Addr + m.spans[i].Len
	}
	return ahead
}

func (m chart) sameFile(i, j int) bool {
	return m.places[i].file != None && m.places[i].file == m.places[j].file
}

// within returns how many of the spans [first, first+n) are of so many files after
// that of span at, and of m.room bytes.
func (m chart) within(first, n, at, files int) int {
	room := m.room
	for i := at + 1; i < first+n; i++ {
		if !m.sameFile(i-1, i) {
			files--
		}
		if i >= first {
			room -= m.spans[i].CLen
		}
		if files < 0 || room < 0 {
			return max(i-first, 0)
		}
	}
	return n
}

// stepwise foresees twice as many strides with each that came true.
func (r *track) stepwise(ahead []int, m chart) []int {
	spans, room := m.spans, m.room
	end := spans[len(spans)-1].Addr + spans[len(spans)-1].Len
	length := max(r.length, r.next-r.start)
	for k := range int64(min(1<<min(r.steps-1, 8), maxForeseen)) {
		from := r.start + (k+1)*r.stride
		if from < 0 || from >= end || (k+1)*length > maxAhead {
			break
		}
		first, n := spansOf(spans, from, min(length, end-from))
		for i := first; i < first+n; i++ {
			if room -= spans[i].CLen; room < 0 {
				return ahead
			}
			ahead = append(ahead, i)
		}
	}
	return ahead
}
