package layer

const (
	maxCourses  = 16       // readers of one layer that are told apart
	maxForeseen = 16       // strides that are foreseen
	courseGap   = 8 << 10  // addresses between files of a tar, which a sequential reader skips
	maxStride   = 64 << 20 // addresses
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
	start  int64  // the address where the run began
	next   int64  // the address behind its last read
	read   int64  // bytes read in sequence
	ahead  int64  // addresses below have been asked for
	stride int64  // from the run before this one, 0 if there is none
	steps  int    // runs that began where they were expected
	length int64  // bytes of the run before this one
	used   uint64 // by the clock; 0 for a free row
}

// advance takes note of a read of [addr, addr+size) and appends to ahead the spans
// that should be fetched ahead, usually none.
func (c *courses) advance(ahead []int, spans []Span, addr, size int64) []int {
	c.clock++
	if row := c.sequential(addr); row != nil {
		row.read += size
		row.next, row.used = addr+size, c.clock
		return row.onwards(ahead, spans)
	}
	row := c.begin(addr, size)
	if row.steps < 2 {
		return ahead
	}
	return row.stepwise(ahead, spans)
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
// that requests stay few. One that goes by strides stops where it did before.
func (r *track) onwards(ahead []int, spans []Span) []int {
	r.ahead = max(r.ahead, r.next)
	window := min(2*r.read, maxAhead)
	if r.ahead-r.next > window/2 {
		return ahead
	}
	to := r.next + window
	if r.steps > 0 {
		to = min(to, r.start+max(r.length, r.next-r.start))
	}
	first, n := spansWithin(spans, r.ahead, to)
	if n > 0 {
		last := &spans[first+n-1]
		r.ahead = last.Addr + last.Len
	}
	return upTo(ahead, first, n)
}

// stepwise foresees twice as many strides with each that came true.
func (r *track) stepwise(ahead []int, spans []Span) []int {
	end := spans[len(spans)-1].Addr + spans[len(spans)-1].Len
	length := max(r.length, r.next-r.start)
	for k := range int64(min(1<<min(r.steps-1, 8), maxForeseen)) {
		from := r.start + (k+1)*r.stride
		if from < 0 || from >= end || (k+1)*length > maxAhead {
			break
		}
		first, n := spansOf(spans, from, min(length, end-from))
		ahead = upTo(ahead, first, n)
	}
	return ahead
}

func upTo(list []int, first, n int) []int {
	for i := first; i < first+n; i++ {
		list = append(list, i)
	}
	return list
}
