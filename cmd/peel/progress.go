package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/peelfs/peel/fs"
)

// pollEvery is how often progress is looked at.
const pollEvery = 100 * time.Millisecond

// streaming returns the layers that are being read whole, or were.
func streaming(p *fs.Progress) []fs.LayerProgress {
	return slices.DeleteFunc(p.Layers(), func(l fs.LayerProgress) bool { return l.State != "streaming" && l.Done == 0 })
}

// watch gives show the streamed layers whenever they have changed, until stop
// is called; stop waits for the last call to end.
func watch(p *fs.Progress, show func([]fs.LayerProgress)) (stop func()) {
	return poll(func() []fs.LayerProgress { return streaming(p) }, show)
}

// poll gives show the layers whenever they have changed, until stop is called;
// stop waits for the last call to end.
func poll(look func() []fs.LayerProgress, show func([]fs.LayerProgress)) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends with stop
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		var last []fs.LayerProgress
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if now := look(); !slices.Equal(now, last) {
				show(now)
				last = now
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
	}
}

// showProgress draws bars for people who wait, until done is called.
func (a *app) showProgress(ctx context.Context, p *fs.Progress) (done func()) {
	if !isTerminal(a.err) {
		return func() {}
	}
	b := newBars(ctx, a.err)
	stop := watch(p, b.update)
	return func() {
		stop()
		b.close()
	}
}

// bars draws one bar per layer.
type bars struct {
	all  *mpb.Progress
	bars map[digest.Digest]*layerBar
	// label is what a bar says of its layer, add makes a bar, and end ends it.
	label func(fs.LayerProgress) string
	add   func(total int64, label decor.Decorator) *mpb.Bar
	end   func(b *mpb.Bar)
}

// layerBar is a bar with a label that changes.
type layerBar struct {
	*mpb.Bar
	label atomic.Pointer[string]
}

// newBars returns bars that go as soon as their layer is here.
func newBars(ctx context.Context, w io.Writer) *bars {
	b := newPullBars(ctx, w)
	b.label = nameLayer
	b.add = func(total int64, label decor.Decorator) *mpb.Bar {
		return b.all.AddBar(total, mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(label), mpb.AppendDecorators(decor.CountersKiloByte("% .1f / % .1f")))
	}
	b.end = func(bar *mpb.Bar) { bar.Abort(true) }
	return b
}

// newPullBars returns bars that stay, with what has become of their layers.
func newPullBars(ctx context.Context, w io.Writer) *bars {
	b := &bars{
		all:  mpb.NewWithContext(ctx, mpb.WithOutput(w), mpb.WithWidth(40)),
		bars: map[digest.Digest]*layerBar{},
	}
	b.label = func(l fs.LayerProgress) string { return fmt.Sprintf("%s%-14s ", nameLayer(l), l.Transfer()) }
	b.add = func(total int64, label decor.Decorator) *mpb.Bar {
		// One that knows its total ends when it gets there, before the layer does.
		bar := b.all.AddBar(0, mpb.PrependDecorators(label), mpb.AppendDecorators(decor.CountersKiloByte("% .1f / % .1f")))
		bar.SetTotal(total, false)
		return bar
	}
	b.end = func(bar *mpb.Bar) {
		bar.EnableTriggerComplete()
		bar.Abort(false) // does nothing to one that is complete
	}
	return b
}

func nameLayer(l fs.LayerProgress) string { return "layer " + shortDigest(l.Digest.String()) + " " }

func (b *bars) update(layers []fs.LayerProgress) {
	for _, l := range layers {
		label := b.label(l)
		bar := b.bars[l.Digest]
		if bar == nil {
			bar = &layerBar{}
			bar.label.Store(&label)
			bar.Bar = b.add(l.Total, decor.Any(func(decor.Statistics) string { return *bar.label.Load() }))
			b.bars[l.Digest] = bar
		}
		bar.label.Store(&label)
		bar.SetCurrent(l.Done)
	}
}

// close ends all bars.
func (b *bars) close() {
	for _, bar := range b.bars {
		b.end(bar.Bar)
	}
	b.all.Wait()
}
