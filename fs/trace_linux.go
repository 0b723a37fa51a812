package fs

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/layer"
)

const (
	// traceQueue is how many reads wait for the writer, at most. A read beyond
	// is not traced, so that none is ever kept waiting.
	traceQueue = 8192
	// traceBatch is how much is written at once while more waits, bytes.
	traceBatch = 64 << 10
)

// tracer writes a line for each read, by a goroutine that lives from begin to
// close.
type tracer struct {
	w     io.Writer
	log   *logrus.Entry
	start atomic.Int64 // when the mount answered, Unix nanoseconds; 0 before
	lost  atomic.Int64 // lines that were not written
	warn  sync.Once
	done  chan struct{} // closed when all is written

	mu     sync.Mutex // held while queue is sent to or closed
	closed bool
	queue  chan tracedRead
}

// tracedRead is a read as Read knows it: the rest of its line is the writer's
// to find out.
type tracedRead struct {
	table *table
	row   uint32
	off   int64
	size  int64
	at    time.Time
	took  time.Duration
	where noted
	err   error
}

func newTracer(w io.Writer, log *logrus.Entry) *tracer {
	return &tracer{w: w, log: log, queue: make(chan tracedRead, traceQueue), done: make(chan struct{})}
}

func (t *tracer) begin() { go t.write() }

// answered sets the time that lines count from.
func (t *tracer) answered() { t.start.Store(time.Now().UnixNano()) }

// read is tree.ReadFile for tb, with a line about it.
func (t *tracer) read(ctx context.Context, tb *table, row uint32, p []byte, off int64) (int, error) {
	r := tracedRead{table: tb, row: row, off: off, at: time.Now(), where: noted{data: tb.data, addr: -1}}
	n, err := tb.tree.ReadFile(ctx, &r.where, row, p, off)
	r.took, r.size, r.err = time.Since(r.at), int64(n), err
	if err != nil {
		r.size = int64(len(p))
	}
	t.put(r)
	return n, err
}

func (t *tracer) put(r tracedRead) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	select {
	case t.queue <- r:
	default:
		t.lose(1, errors.New("reads come faster than lines can be written"))
	}
}

// lose counts lines that will not be written, and tells so the first time.
func (t *tracer) lose(n int, why error) {
	t.lost.Add(int64(n))
	t.warn.Do(func() { t.log.WithError(why).Warn("the trace has not all reads; reading goes on") })
}

// close returns when all lines are written. No read comes any more.
func (t *tracer) close() {
	t.mu.Lock()
	t.closed = true
	close(t.queue)
	t.mu.Unlock()
	<-t.done
	if n := t.lost.Load(); n > 0 {
		t.log.WithField("lost", n).Warn("the trace has not all reads")
	}
}

// write writes whole lines, many at once while many wait. After an error it
// only counts.
func (t *tracer) write() {
	defer close(t.done)
	var buf []byte
	lines := 0
	broken := false
	for r := range t.queue {
		if broken {
			t.lose(1, nil)
			continue
		}
		buf, lines = append(t.line(buf, r), '\n'), lines+1
		if len(t.queue) > 0 && len(buf) < traceBatch {
			continue
		}
		if _, err := t.w.Write(buf); err != nil {
			broken = true
			t.lose(lines, err)
		}
		buf, lines = buf[:0], 0
	}
}

// line appends the line of r to buf.
func (t *tracer) line(buf []byte, r tracedRead) []byte {
	l := TraceLine{
		Path: r.table.name, Off: r.off, Len: r.size, Layer: r.where.layer, Addr: r.where.addr,
		From: r.where.from(), Millis: round(float64(r.took)/float64(time.Millisecond), 1e3),
	}
	if l.Path == "" {
		l.Path = r.table.tree.Path(r.row)
	}
	l.Path = strings.TrimPrefix(l.Path, "/")
	if start := t.start.Load(); start > 0 {
		l.T = round(max(0, float64(r.at.UnixNano()-start)/float64(time.Second)), 1e6)
	}
	if r.err != nil {
		l.Error = r.err.Error()
	}
	data, err := json.Marshal(l)
	if err != nil { // no value of a TraceLine is unfit
		return buf
	}
	return append(buf, data...)
}

func round(x, parts float64) float64 { return math.Round(x*parts) / parts }

// noted is a tree.Data that finds out where the bytes of one read came from.
type noted struct {
	data  tree.Data
	layer int
	addr  int64 // of the first byte; -1 before
	sum   layer.Note
}

func (d *noted) ReadAt(ctx context.Context, i int, p []byte, addr int64) (int, error) {
	if d.addr < 0 {
		d.layer, d.addr = i, addr
	}
	var n layer.Note
	k, err := d.data.ReadAt(layer.WithNote(ctx, &n), i, p, addr)
	d.sum.Reused += n.Reused
	d.sum.Fetched += n.Fetched
	return k, err
}

func (d *noted) from() string {
	switch {
	case d.sum.Fetched > 0:
		return layer.FromNetwork.String()
	case d.sum.Reused > 0:
		return layer.FromReuse.String()
	case d.addr < 0:
		return "none"
	}
	return layer.FromStore.String()
}
