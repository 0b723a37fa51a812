package fs

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/peelfs/peel/layer"
)

// Errors of showing an image early; a reader sees EIO.
var (
	errUnstaged = errors.New("the layer is not staged any more")
	errNoNode   = errors.New("no such node")
	errAnew     = errors.New("the layer is streamed anew, and what was shown of it may have been wrong")
)

// earlyLayer is what is known of a layer by now. Early.mu guards it.
type earlyLayer struct {
	// Once the layer is known:
	index    *layer.Index
	reader   *layer.Layer
	implicit []string            // directories that no entry describes, and that may yet prove to lie behind a symlink of a lower layer
	linked   map[uint32]struct{} // inodes of several names

	// While it is streamed:
	headers map[string]*layer.Header // by clean path, "" being the root
	odd     bool                     // its entries lead through symlinks: they show when it is known
	stage   *earlyStage
	staged  int64 // bytes that can be read from stage
	shown   bool  // something of it has been shown
}

func newEarlyLayer(x *layer.Index, r *layer.Layer) earlyLayer {
	l := earlyLayer{index: x, reader: r, linked: make(map[uint32]struct{})}
	seen := make([]bool, len(x.Inodes))
	for _, e := range x.Entries {
		if e.Kind != layer.EntryInode {
			continue
		}
		if seen[e.Inode] {
			l.linked[e.Inode] = struct{}{}
		}
		seen[e.Inode] = true
	}
	l.findImplicit("", 0)
	return l
}

// findImplicit collects the implicit directories below dir, parents first. The
// depth of an index is bounded.
func (l *earlyLayer) findImplicit(name string, dir uint32) {
	c := l.index.Inodes[dir].Children
	for _, e := range l.index.Entries[c.First:][:c.Count] {
		if e.Kind != layer.EntryInode || l.index.Inodes[e.Inode].Mode&typeMask != typeDir {
			continue
		}
		sub := path.Join(name, l.index.Name(e))
		if l.index.Inodes[e.Inode].Flags&layer.Implicit != 0 {
			l.implicit = append(l.implicit, sub)
		}
		l.findImplicit(sub, e.Inode)
	}
}

// add takes a header of the tar.
func (l *earlyLayer) add(name string, h *layer.Header) {
	for dir := parent(name); dir != ""; dir = parent(dir) {
		if d := l.headers[dir]; d != nil && (d.Hardlink || d.Mode&typeMask != typeDir) {
			l.odd = true
		}
	}
	if strings.Contains("/"+name, "/.wh.") {
		return // concerns lower layers, which show nothing before this one is whole
	}
	l.headers[name] = h
}

// header returns what the layer has shown of a path so far, nil if that is not
// sure: where a parent is not described, a symlink of a lower layer may decide.
func (l *earlyLayer) header(name string) *layer.Header {
	h := l.headers[name]
	if l.odd || h == nil || h.Hardlink {
		return nil
	}
	for dir := parent(name); dir != ""; dir = parent(dir) {
		if l.headers[dir] == nil {
			return nil
		}
	}
	return h
}

func parent(name string) string { return name[:max(strings.LastIndexByte(name, '/'), 0)] }

// earlyWatcher sees a layer while it is streamed; it is layer.Watcher.
type earlyWatcher struct {
	early *Early
	layer int
}

func (w *earlyWatcher) Header(h *layer.Header) {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	e := w.early
	e.mu.Lock()
	defer e.mu.Unlock()
	e.layers[w.layer].add(name, h)
	if e.wanted[name] > 0 || h.Mode&typeMask == typeDir {
		e.wake()
	}
}

func (w *earlyWatcher) Staged(n int64) {
	e := w.early
	e.mu.Lock()
	defer e.mu.Unlock()
	l := &e.layers[w.layer]
	if n < l.staged { // what an earlier pass had left was to blame
		if l.shown && e.err == nil {
			e.err = fmt.Errorf("layer %s: %w: %w", e.known.Manifest.Layers[w.layer].Digest, layer.ErrVerify, errAnew)
			e.cancel() // end takes back what was shown
		}
		l.headers, l.odd = make(map[string]*layer.Header), false
	}
	l.staged = n
	e.wake()
}

// earlyStage lets a layer.Stage, which is for one goroutine, be read by others.
type earlyStage struct {
	layer.Stage
	kept layer.Resumable // the same
	gone func()          // called before the stage cannot be read any more

	mu     sync.Mutex // held in every call
	closed bool
}

func (s *earlyStage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Stage.Write(p)
}

func (s *earlyStage) Commit(size int64, spans int) error {
	s.gone()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.Stage.Commit(size, spans)
}

func (s *earlyStage) Close() error {
	s.gone()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.Stage.Close()
}

func (s *earlyStage) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errUnstaged
	}
	return s.kept.ReadAt(p, off)
}

func (s *earlyStage) Notes() ([]byte, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Notes()
}

func (s *earlyStage) Note(note []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Note(note)
}

func (s *earlyStage) Rewind(size int64, notes []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Rewind(size, notes)
}
