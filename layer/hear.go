package layer

import (
	"context"
	"strings"
	"sync"

	"github.com/peelfs/peel/layer/mention"
)

const (
	// heardChance is how likely it must be that a file is read for what it
	// mentions to be looked at.
	heardChance = 0.5
	// heardSize is how far into a file it is looked at, bytes.
	heardSize = 4 << 20
)

// ears know the files of all layers of a Traffic by name, so that files that were
// read, or soon will be, tell which ones come next.
type ears struct {
	mu     sync.RWMutex // guards what follows; held while something of another layer is used, which may be closed then
	layers []*Layer     // by number; nil for those that were closed
	words  *mention.Dictionary
	known  int // of the layers are in words
}

// join makes a layer's files known.
func (e *ears) join(l *Layer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l.number = len(e.layers)
	e.layers = append(e.layers, l)
}

// leave forgets a layer, and waits until nobody uses it on account of a mention.
func (e *ears) leave(l *Layer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.layers[l.number] = nil
	if e.words != nil && e.known == len(e.layers) {
		e.words, e.known = nil, 0
	}
}

// dictionary returns what is known of the layers' files. It needs none of their
// memory.
func (e *ears) dictionary() *mention.Dictionary {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.words == nil || e.known != len(e.layers) {
		b := mention.NewBuilder()
		for _, l := range e.layers {
			if l != nil {
				l.names(b)
			}
		}
		e.words, e.known = b.Build(), len(e.layers)
	}
	return e.words
}

// tell has the layers guess what of theirs is mentioned, by a file that is read
// with a certain chance.
func (e *ears) tell(ctx context.Context, all []mention.Mention, chance float64) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	by := make([][]mentioned, len(e.layers))
	for _, m := range all {
		layer, span := m.ID>>32, int(uint32(m.ID))
		by[layer] = append(by[layer], mentioned{span, m.How, chance})
	}
	for number, spans := range by {
		if l := e.layers[number]; l != nil && len(spans) > 0 && !l.byPass() {
			l.early(ctx, l.forecast.hear(spans, l.absent))
		}
	}
}

// names adds the layer's files that have spans of their own.
func (l *Layer) names(b *mention.Builder) {
	paths := l.paths()
	for _, n := range l.x.filesByAddr() {
		first, _ := spansOf(l.x.Spans, n.addr, 1)
		if l.x.Spans[first].Addr == n.addr {
			b.Add(uint64(l.number)<<32|uint64(first), paths[n.dir], l.x.Name(l.x.Entries[n.name]))
		}
	}
}

// directories returns the paths of directories by row, relative to the root, that
// being ".".
func (x *Index) directories() map[uint32]string {
	paths := map[uint32]string{0: "."}
	for todo := []uint32{0}; len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, e := range x.entries(dir) {
			if e.Kind == EntryInode && x.Inodes[e.Inode].isDir() {
				paths[e.Inode] = strings.Clone(x.Name(e)) // a dictionary may live longer than the index
				if dir != 0 {
					paths[e.Inode] = paths[dir] + "/" + paths[e.Inode]
				}
				todo = append(todo, e.Inode)
			}
		}
	}
	return paths
}

// hear has those files fetched that the data of span i mentions, as far as they
// are worth a guess.
func (l *Layer) hear(ctx context.Context, i int, data []byte) {
	chance := l.forecast.certainty(i)
	if chance < heardChance || l.refusal.Load() != nil {
		return
	}
	text, ok := l.text(i)
	if !ok || !l.heard.once(i) {
		return
	}
	text.Bytes = data
	e := &l.traffic.ears
	e.tell(ctx, e.dictionary().Find(text), chance)
}

// listen has those of the spans [first, first+n) looked at that were fetched
// before it was likely that they would be read. Nobody waits for it.
func (l *Layer) listen(ctx context.Context, first, n int) {
	var spans []int
	for i := first; i < first+n; i++ {
		if !l.heard.has(i) && l.forecast.certainty(i) >= heardChance {
			spans = append(spans, i)
		}
	}
	l.early(ctx, spans) // which takes from the store what is there
}

// text says which file the data of span i is of, if it is of one only.
func (l *Layer) text(i int) (t mention.Text, ok bool) {
	p := l.forecast.place(i)
	if p.file == None {
		return t, false
	}
	at, _ := l.x.firstRun(&l.x.Inodes[p.file])
	if l.x.Spans[i].Addr-at > heardSize {
		return t, false
	}
	return mention.Text{In: l.paths()[p.dir], Name: l.x.Name(l.x.Entries[p.name])}, true
}
