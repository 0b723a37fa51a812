package fs

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peelfs/peel/layer"
)

// TestFillAndReader: a fill that waits for readers has no claim on what one of
// them waits for.
func TestFillAndReader(t *testing.T) {
	t.Parallel()
	f := newFilling(t)
	synctest.Test(t, func(t *testing.T) {
		f.o.Yield = layer.NewTraffic(layer.TrafficOptions{NoGuess: true})
		f.open(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		read := func(layer int) {
			if _, err := f.image.ReadAt(ctx, layer, make([]byte, 10), 0); err != nil {
				t.Errorf("reading layer %d: %v", layer, err)
			}
		}
		var readers sync.WaitGroup
		var begun atomic.Bool
		meanwhile := func() {
			if begun.Swap(true) {
				return // a reader's own range
			}
			read(1) // now the fill waits with what it has of the other layer
			readers.Go(func() {
				<-time.After(50 * time.Millisecond)
				read(0)
			})
		}
		f.change = func(_ int64, body io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(body, 200_000), calling{meanwhile}, body)
		}
		if err := f.image.Fill(ctx, f.o); err != nil {
			t.Error(err)
		}
		readers.Wait()
		f.done(t)
	})
}

// calling calls when it is read.
type calling struct{ call func() }

func (c calling) Read([]byte) (int, error) {
	c.call()
	return 0, io.EOF
}
