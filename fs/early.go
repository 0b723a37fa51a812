package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/fs/tree"
	"github.com/peelfs/peel/layer"
)

// Early is an image that can be mounted while its layers are still streamed.
//
// A path is shown as soon as no upper layer can change it any more, which
// package tree's rules say; see look. Everything else waits for the opening:
// names that are not there, listings, hard links. What is shown is not proved
// yet. When the opening ends, all of it is compared with the image, and what
// differs, or everything if the opening failed, answers EIO from then on.
type Early struct {
	log    *logrus.Entry
	cancel context.CancelFunc
	keep   func() bool   // lets the opening go on when its caller's context ends
	begun  chan struct{} // closed when known is set: a layer is being streamed
	done   chan struct{} // closed when the opening has ended
	known  *Image        // manifest and config only

	mu      sync.Mutex     // guards what follows
	changed chan struct{}  // closed, and replaced, when waiting may have come to an end
	wanted  map[string]int // how many wait for a path
	layers  []earlyLayer   // bottom first
	nodes   []*earlyNode   // by node id from firstEarly on
	paths   map[string]*earlyNode
	image   *Image     // once it is open
	numbers *numbering // likewise
	err     error      // why it never will be
	failed  func(path string, err error)
	spoilt  func(ids []uint64) // told when the kernel must forget what it was shown
	broken  *Image             // an image that did not open; requests may still look at its tables
}

// OpenEarly opens ref like Open, but returns as soon as one of its layers has
// to be streamed, with an Early instead of the Image then.
func OpenEarly(ctx context.Context, ref string, o Options) (*Image, *Early, error) {
	e := &Early{
		begun: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		wanted: make(map[string]int), paths: make(map[string]*earlyNode), log: o.Log,
	}
	if e.log == nil {
		e.log = logrus.NewEntry(logrus.StandardLogger())
	}
	// The mount that is to come outlives the call that asked for it, see Keep.
	opening, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel, e.keep = cancel, context.AfterFunc(ctx, cancel)
	o.early = e
	go func() { // ends with the opening; Close waits for it
		defer close(e.done)
		m, err := Open(opening, ref, o)
		e.end(m, err)
	}()
	select {
	case <-e.begun:
		return nil, e, nil
	case <-e.done:
		if e.image != nil {
			e.keep()
			cancel()
			return e.image, nil, nil
		}
		err := errors.Join(e.err, e.Close())
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, err
	}
}

// Known returns the image's documents; it has neither tree nor layers.
func (e *Early) Known() *Image { return e.known }

// Keep lets the opening go on when the context of OpenEarly ends.
func (e *Early) Keep() { e.keep() }

// Wait returns the image once it is open, or why it never will be.
func (e *Early) Wait(ctx context.Context) (*Image, error) {
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.image, e.err
}

// Layers returns the readers of the layers that are ready by now.
func (e *Early) Layers() []*layer.Layer {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*layer.Layer
	for i := range e.layers {
		if l := e.layers[i].reader; l != nil {
			out = append(out, l)
		}
	}
	return out
}

// Close ends the opening if it is still under way, and lets go of the image.
func (e *Early) Close() error {
	e.keep()
	e.cancel()
	<-e.done
	var errs []error
	for _, m := range []*Image{e.image, e.broken} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// start is told how many layers there are, before anything else is told.
func (e *Early) start(layers int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.layers = make([]earlyLayer, layers)
}

// begin is told that a layer of m is about to be streamed to stage. It returns
// what the pass is to write to and to be watched by. The config of m is there.
func (e *Early) begin(m *Image, i int, stage layer.Stage) (layer.Stage, layer.Watcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil {
		e.known = &Image{Manifest: m.Manifest, Config: m.Config, Resolved: m.Resolved}
		close(e.begun)
	}
	l := &e.layers[i]
	l.headers = make(map[string]*layer.Header)
	if kept, ok := stage.(layer.Resumable); ok {
		l.stage = &earlyStage{Stage: stage, kept: kept, gone: func() { e.unstage(i) }}
		stage = l.stage
	}
	return stage, &earlyWatcher{early: e, layer: i}
}

// indexed is told that layer i is whole and proved, or known by a table.
func (e *Early) indexed(i int, x *layer.Index, r *layer.Layer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.layers[i] = newEarlyLayer(x, r)
	e.wake()
}

// attachEarly lets the early view read layer i before the other layers are known.
func (op *opening) attachEarly(m *Image, i int, x *layer.Index) error {
	err := op.attach(m, i, x)
	if err == nil {
		op.early.indexed(i, x, m.layers[i])
	}
	return err
}

// abandon closes an image that did not open. What has been shown of it still
// is in use, and stays until Early.Close.
func (op *opening) abandon(m *Image) error {
	if op.early == nil {
		return m.Close()
	}
	op.early.mu.Lock()
	defer op.early.mu.Unlock()
	op.early.broken = m
	return nil
}

// unstage is told that the stage of layer i cannot be read any more.
func (e *Early) unstage(i int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.layers[i].stage = nil
}

// end is told how the opening ended.
func (e *Early) end(m *Image, err error) {
	e.mu.Lock()
	failed, spoilt := e.failed, e.spoilt
	var bad []uint64
	switch {
	case e.err != nil: // known before
		err = e.err
		if m != nil {
			e.broken = m
		}
	case err != nil:
		e.err = err
	default:
		bad = e.settle(m)
		e.image = m
	}
	if e.err != nil {
		bad = e.all()
	}
	e.wake()
	e.mu.Unlock()
	if failed == nil {
		return // nothing was shown
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		failed("/", fmt.Errorf("what was shown before the end of the opening is not trusted any more: %w", err))
	}
	spoilt(bad)
}

// wake lets everybody who waits look again. e.mu is held.
func (e *Early) wake() {
	if len(e.wanted) > 0 {
		close(e.changed)
		e.changed = make(chan struct{})
	}
}

// await returns when look, called with e.mu held, has returned true. It looks
// whenever something has changed; headers count as a change to who waits for
// their path.
func (e *Early) await(ctx context.Context, path string, look func() bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		if e.err != nil {
			return e.err
		}
		if look() {
			return nil
		}
		changed := e.changed
		e.wanted[path]++
		e.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		e.mu.Lock()
		if e.wanted[path]--; e.wanted[path] == 0 {
			delete(e.wanted, path)
		}
		if err != nil {
			return err
		}
	}
}

// ReadAt is tree.Data's. While layer i is streamed, it reads what the stage has
// got, once it has it.
func (e *Early) ReadAt(ctx context.Context, i int, p []byte, addr int64) (int, error) {
	for {
		var r *layer.Layer
		var s *earlyStage
		err := e.await(ctx, "", func() bool {
			l := &e.layers[i]
			r, s = l.reader, l.stage
			if s != nil && l.staged < addr+int64(len(p)) {
				s = nil
			}
			l.shown = l.shown || s != nil
			return r != nil || s != nil
		})
		if err != nil {
			return 0, err
		}
		if r != nil {
			return r.ReadAt(ctx, p, addr)
		}
		n, err := s.ReadAt(p, addr)
		if n == len(p) {
			return n, nil
		}
		if !errors.Is(err, errUnstaged) {
			return n, err
		}
	}
}

// find returns the node of a name in the directory of node dir, once it is
// known, or nil once the image is open.
func (e *Early) find(ctx context.Context, dir uint64, name string) (n *earlyNode, err error) {
	e.mu.Lock()
	parent, ok := e.node(dir)
	e.mu.Unlock()
	if !ok {
		return nil, errNoNode
	}
	path := name
	if parent.path != "" {
		path = parent.path + "/" + name
	}
	err = e.await(ctx, path, func() bool {
		if e.image != nil {
			return true
		}
		if n, ok = e.paths[path]; ok {
			return true
		}
		s := e.look(path, len(e.layers))
		if s.state != present {
			return false
		}
		n = e.allot(path, s)
		return true
	})
	return n, err
}

// allot makes a node of what is seen at path. e.mu is held.
func (e *Early) allot(path string, s sight) *earlyNode {
	n := &earlyNode{id: firstEarly + uint64(len(e.nodes)), path: path, one: s.tree()}
	e.nodes = append(e.nodes, n)
	e.paths[path] = n
	if l := &e.layers[s.layer]; l.index == nil {
		l.shown = true
	}
	return n
}

// node returns the node of an id. e.mu is held.
func (e *Early) node(id uint64) (*earlyNode, bool) {
	if id == rootID {
		return &earlyNode{id: rootID}, true
	}
	if id-firstEarly >= uint64(len(e.nodes)) {
		return nil, false
	}
	return e.nodes[id-firstEarly], true
}

// at returns the node of an id and what is known of it: of a directory what
// the layers say by now. It returns nil once the image is open.
func (e *Early) at(id uint64) (*earlyNode, *tree.Tree, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, ok := e.node(id)
	switch {
	case e.err != nil:
		return nil, nil, e.err
	case e.image != nil:
		return nil, nil, nil
	case !ok:
		return nil, nil, errNoNode
	case id == rootID:
		return n, e.root().tree(), nil
	}
	if n.one.Inodes[0].Mode&typeMask == typeDir {
		if s := e.look(n.path, len(e.layers)); s.state == present && s.mode()&typeMask == typeDir {
			n.one = s.tree()
		}
	}
	return n, n.one, nil
}
