package main

import (
	"context"
	"io"
	"slices"
	"sync"
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
			if now := streaming(p); !slices.Equal(now, last) {
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

// bars draws one bar per streamed layer.
type bars struct {
	all  *mpb.Progress
	bars map[digest.Digest]*mpb.Bar
}

func newBars(ctx context.Context, w io.Writer) *bars {
	return &bars{
		all:  mpb.NewWithContext(ctx, mpb.WithOutput(w), mpb.WithWidth(40)),
		bars: map[digest.Digest]*mpb.Bar{},
	}
}

func (b *bars) update(layers []fs.LayerProgress) {
	for _, l := range layers {
		bar := b.bars[l.Digest]
		if bar == nil {
			bar = b.all.AddBar(l.Total, mpb.BarRemoveOnComplete(),
				mpb.PrependDecorators(decor.Name("layer "+shortDigest(l.Digest.String())+" ")),
				mpb.AppendDecorators(decor.CountersKiloByte("% .1f / % .1f")))
			b.bars[l.Digest] = bar
		}
		bar.SetCurrent(l.Done)
	}
}

// close takes the bars away.
func (b *bars) close() {
	for _, bar := range b.bars {
		bar.Abort(true)
	}
	b.all.Wait()
}
