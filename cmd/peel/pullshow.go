package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/peelfs/peel/fs"
)

// pullShow shows how pulls get on. Its methods may be called concurrently.
type pullShow interface {
	// layers shows how far the layers of an image are.
	layers(image string, l []fs.LayerProgress)
	// image shows that a pull begins, or how it has ended.
	image(image string, o pullOutcome)
	// close returns when all is shown.
	close()
}

// pullOutcome is how a pull has ended; its zero value is that of one that begins.
type pullOutcome struct {
	ended   bool
	pulled  *fs.Pulled
	names   []string // by which the cache knows it, if it lies on this machine
	failure *failure
}

// known are the names by which the image can be mounted now.
func (o pullOutcome) known() []string {
	if len(o.names) > 0 {
		return o.names
	}
	return []string{o.pulled.Reference}
}

// show returns what the user wants to see of pulls.
func (b *pullBatch) show(ctx context.Context) pullShow {
	switch {
	case b.json:
		return &pullEvents{w: b.out}
	case b.quiet:
		return &pullNames{w: b.out}
	case isTerminal(b.err):
		return &pullBars{bars: newPullBars(ctx, b.err), ends: pullEnds{w: b.out}}
	}
	return &pullLines{pullEnds: pullEnds{w: b.out}}
}

// pullEnds tells how pulls have ended, in the words of docker pull. Errors are
// told elsewhere.
type pullEnds struct {
	w  io.Writer
	mu sync.Mutex // keeps together what belongs together
}

func (p *pullEnds) end(o pullOutcome) {
	if o.pulled == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	what := "Image is up to date"
	if o.pulled.New {
		what = "Downloaded newer image"
	}
	fmt.Fprintf(p.w, "Digest: %s\nStatus: %s for %s\n", o.pulled.Digest, what, o.pulled.Reference)
	for _, name := range o.names {
		if name != o.pulled.Reference {
			fmt.Fprintf(p.w, "Known as %s\n", name)
		}
	}
}

// pullNames tells the names of the images that were pulled.
type pullNames struct {
	w  io.Writer
	mu sync.Mutex // held while a line is written
}

func (*pullNames) layers(string, []fs.LayerProgress) {}
func (*pullNames) close()                            {}

func (p *pullNames) image(_ string, o pullOutcome) {
	if o.pulled != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, name := range o.known() {
			fmt.Fprintln(p.w, name)
		}
	}
}

// told is what was told of layers last.
type told map[string]map[digest.Digest]fs.LayerProgress

// fresh returns those of an image's layers of which there is something to tell.
func (t told) fresh(image string, layers []fs.LayerProgress, differ func(a, b fs.LayerProgress) bool) []fs.LayerProgress {
	if t[image] == nil {
		t[image] = map[digest.Digest]fs.LayerProgress{}
	}
	var out []fs.LayerProgress
	for _, l := range layers {
		if old, ok := t[image][l.Digest]; ok && !differ(old, l) {
			continue
		}
		t[image][l.Digest] = l
		out = append(out, l)
	}
	return out
}

// pullLines tells each change of a layer's state in a line.
type pullLines struct {
	pullEnds
	told told
}

func (p *pullLines) layers(image string, layers []fs.LayerProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told == nil {
		p.told = told{}
	}
	for _, l := range p.told.fresh(image, layers, func(a, b fs.LayerProgress) bool { return a.Transfer() != b.Transfer() }) {
		fmt.Fprintf(p.w, "%s: %s\n", shortDigest(l.Digest.String()), l.Transfer())
	}
}

func (p *pullLines) image(image string, o pullOutcome) {
	if !o.ended {
		p.mu.Lock()
		defer p.mu.Unlock()
		fmt.Fprintf(p.w, "Pulling %s\n", image)
		return
	}
	p.end(o)
}

func (p *pullLines) close() {}

// pullEvent is a change, for programs.
type pullEvent struct {
	Image  string        `json:"image"`
	Layer  digest.Digest `json:"layer,omitempty"`
	State  string        `json:"state"` // of the layer; of the image: pulling, pulled or failed
	Done   int64         `json:"done"`  // compressed bytes
	Total  int64         `json:"total"`
	Digest digest.Digest `json:"digest,omitempty"`
	New    *bool         `json:"new,omitempty"`
	Bytes  *int64        `json:"fetched,omitempty"` // compressed bytes of layers
	Names  []string      `json:"names,omitempty"`   // by which the cache knows an image of this machine
	Error  *failure      `json:"error,omitempty"`
}

// pullEvents tells each change as an object on a line of its own.
type pullEvents struct {
	w    io.Writer
	mu   sync.Mutex // guards told and total, and is held while a line is written
	told told
}

func (p *pullEvents) layers(image string, layers []fs.LayerProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told == nil {
		p.told = told{}
	}
	differ := func(a, b fs.LayerProgress) bool { return a.Transfer() != b.Transfer() || a.Done != b.Done }
	for _, l := range p.told.fresh(image, layers, differ) {
		p.writeLocked(pullEvent{Image: image, Layer: l.Digest, State: l.Transfer(), Done: l.Done, Total: l.Total})
	}
}

func (p *pullEvents) image(image string, o pullOutcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := pullEvent{Image: image, State: "pulling"}
	for _, l := range p.told[image] {
		e.Done += l.Done
		e.Total += l.Total
	}
	switch {
	case o.failure != nil:
		e.State, e.Error = "failed", o.failure
	case o.pulled != nil:
		e.State, e.Digest, e.New, e.Bytes, e.Names = "pulled", o.pulled.Digest, &o.pulled.New, &o.pulled.Bytes, o.names
	}
	p.writeLocked(e)
}

func (p *pullEvents) writeLocked(e pullEvent) {
	if line, err := json.Marshal(e); err == nil {
		_, _ = p.w.Write(append(line, '\n')) // who does not listen misses it
	}
}

func (p *pullEvents) close() {}

// pullBars draws a bar per layer, and tells how pulls have ended below them.
type pullBars struct {
	bars *bars
	ends pullEnds

	mu   sync.Mutex // guards over, and bars
	over []pullOutcome
}

func (p *pullBars) layers(_ string, layers []fs.LayerProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bars.update(layers)
}

func (p *pullBars) image(_ string, o pullOutcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = append(p.over, o)
}

func (p *pullBars) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bars.close()
	for _, o := range p.over {
		p.ends.end(o)
	}
}
