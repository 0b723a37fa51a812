package layer

import (
	"context"
	"slices"
	"sync"
)

// maxClaim is how many bytes of the address space are claimed in one piece, a
// single longer span apart. Readers of other processes wait for the piece, and
// so for what comes before it in the same request.
const maxClaim = 4 << 20

// share has get deliver spans, and keeps other processes from fetching them
// meanwhile. Those that they fetch are waited for, and looked for in the store
// before get is asked. Nothing is waited for while there are claims.
func (l *Layer) share(ctx context.Context, missing []int, done deliver, get func(missing []int, done deliver)) {
	s, ok := l.store.(Sharer)
	if !ok || len(missing) == 0 {
		get(missing, done)
		return
	}
	for rest := l.pieces(missing); len(rest) > 0; {
		c := &claims{l: l, s: s, done: done, of: make(map[int]*claim)}
		if rest = c.take(rest); len(c.spans) == 0 {
			if !c.wait(ctx, rest[0]) {
				return
			}
			rest = rest[1:]
		}
		if c.look(); len(c.spans) > 0 {
			get(c.spans, c.deliver)
		}
		c.drop()
	}
}

// sharePass is share where get costs the same for one span as for all. It waits
// for what others may be about to store, and asks get once nobody else is at it.
func (l *Layer) sharePass(ctx context.Context, missing []int, done deliver, get func(missing []int, done deliver)) {
	s, ok := l.store.(Sharer)
	if !ok || len(missing) == 0 {
		get(missing, done)
		return
	}
	for rest := l.pieces(missing); len(rest) > 0; {
		c := &claims{l: l, s: s, done: done, of: make(map[int]*claim)}
		if !c.wait(ctx, rest[0]) {
			return
		}
		rest = rest[1:]
		if c.look(); len(c.spans) == 0 {
			continue
		}
		rest = c.take(rest)
		if c.look(); len(c.spans) > 0 {
			get(c.spans, c.deliver)
		}
		c.drop()
	}
}

// pieces cuts spans, which are in order, into neighbours that are claimed
// together.
func (l *Layer) pieces(spans []int) (pieces [][]int) {
	var n int64
	for k, i := range spans {
		size := l.x.Spans[i].Len
		if last := len(pieces) - 1; k > 0 && spans[k-1] == i-1 && n+size <= maxClaim {
			pieces[last] = append(pieces[last], i)
			n += size
			continue
		}
		pieces, n = append(pieces, []int{i}), size
	}
	return pieces
}

// claims are spans that other processes leave to this one.
type claims struct {
	l     *Layer
	s     Sharer
	done  deliver
	spans []int // claimed and not delivered, when nobody else uses it

	mu sync.Mutex // guards what follows
	of map[int]*claim
}

// claim is one on a piece.
type claim struct {
	left    int // spans of it that have not been delivered
	release func()
}

// take claims those pieces that no other process has claimed, and returns the
// others.
func (c *claims) take(pieces [][]int) (theirs [][]int) {
	for _, piece := range pieces {
		release, ok, err := c.s.TryClaim(piece[0], len(piece))
		if err != nil {
			release, ok = c.l.alone(err), true
		}
		if !ok {
			theirs = append(theirs, piece)
			continue
		}
		c.add(piece, release)
	}
	return theirs
}

// wait claims a piece once no other process does, and reports false if ctx ends
// before.
func (c *claims) wait(ctx context.Context, piece []int) bool {
	release, err := c.s.Claim(ctx, piece[0], len(piece))
	if ctx.Err() != nil {
		if err == nil {
			release()
		}
		return false
	}
	if err != nil {
		release = c.l.alone(err)
	}
	c.add(piece, release)
	return true
}

// alone reports that spans cannot be claimed, and returns what releases none.
func (l *Layer) alone(err error) func() {
	l.unshared.Do(func() {
		l.log.WithError(err).Warn("cannot tell other processes what is being fetched; they may fetch it, too")
	})
	return func() {}
}

func (c *claims) add(piece []int, release func()) {
	one := &claim{left: len(piece), release: release}
	for _, i := range piece {
		c.of[i] = one
	}
	c.spans = append(c.spans, piece...)
}

// look delivers those of the spans that another process has stored meanwhile.
func (c *claims) look() {
	var present, missing []int
	for _, i := range c.spans {
		if c.l.store.Has(i) {
			present = append(present, i)
		} else {
			missing = append(missing, i)
		}
	}
	c.spans = append(missing, c.l.deliverKept(present, c.l.readWhole, FromStore, c.deliver)...)
	slices.Sort(c.spans)
}

// deliver delivers a span, and gives up the claim on its piece with the last
// one.
func (c *claims) deliver(i int, a arrival, err error) {
	c.done(i, a, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.of[i]
	delete(c.of, i)
	if one.left--; one.left == 0 {
		one.release()
	}
}

// drop gives up the claims on what was not delivered.
func (c *claims) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.of {
		if one.left > 0 {
			one.left = 0
			one.release()
		}
	}
	clear(c.of)
}
