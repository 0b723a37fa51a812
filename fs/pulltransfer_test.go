package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/layer"
)

func quietTransfers() *transfers {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return newTransfers(logrus.NewEntry(l))
}

func newLayerProgress() *layerProgress {
	l := &layerProgress{}
	l.meter.Store(newMeter(TransferWaiting))
	return l
}

func TestTransferIsTriedAgain(t *testing.T) {
	t.Parallel()
	network := fmt.Errorf("gone: %w", errdefs.ErrUnavailable)
	other := errors.New("no space")
	for _, tc := range []struct {
		name  string
		fails []error // of the attempts, in order; then they succeed
		want  error
		tries int
		most  time.Duration
	}{
		{"at once", nil, nil, 1, 0},
		{"network, twice", []error{network, network}, nil, 3, 5 * time.Second},
		{"network, for good", []error{network, network, network, network, network, network, network}, errdefs.ErrUnavailable, 6, 47 * time.Second},
		{"time-out", []error{context.DeadlineExceeded}, nil, 2, 2 * time.Second},
		{"damaged", []error{layer.ErrVerify}, nil, 2, 2 * time.Second},
		{"damaged at its source", []error{layer.ErrVerify, layer.ErrVerify}, layer.ErrVerify, 2, 2 * time.Second},
		{"nothing that passes", []error{other}, other, 1, 0},
		{"first one, then the other", []error{network, layer.ErrVerify, network, other}, other, 4, 15 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := quietTransfers()
				defer tr.close()
				tries, start := 0, time.Now()
				err := tr.join(t.Context(), transferKey{slot: "x"}, newLayerProgress(), func(context.Context, *meter) error {
					tries++
					if tries <= len(tc.fails) {
						return tc.fails[tries-1]
					}
					return nil
				})
				took := time.Since(start)
				if !errors.Is(err, tc.want) || tc.want == nil && err != nil || tries != tc.tries {
					t.Errorf("%d tries, %v", tries, err)
				}
				if took > tc.most || took < tc.most/4 {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A transfer ends with the last pull that wants it, not with the first.
func TestTransferIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := quietTransfers()
		defer tr.close()
		key := transferKey{slot: "x"}
		begun, ended := 0, 0
		work := func(ctx context.Context, m *meter) error {
			begun++
			m.done.Store(7)
			<-ctx.Done()
			ended++
			return context.Cause(ctx)
		}
		join := func(l *layerProgress) (leave context.CancelFunc, end chan error) {
			ctx, cancel := context.WithCancel(t.Context())
			end = make(chan error, 1)
			go func() { end <- tr.join(ctx, key, l, work) }() // ends with the context
			synctest.Wait()
			return cancel, end
		}
		a, b := newLayerProgress(), newLayerProgress()
		leaveA, endA := join(a)
		leaveB, endB := join(b)
		if begun != 1 || a.meter.Load() != b.meter.Load() || b.meter.Load().done.Load() != 7 {
			t.Errorf("begun %d times", begun)
		}
		leaveA()
		if err := <-endA; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if ended != 0 {
			t.Error("ended with the first that left")
		}
		leaveB()
		if err := <-endB; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		<-time.After(time.Millisecond)
		synctest.Wait()
		if ended != 1 || len(tr.meters) != 0 {
			t.Errorf("ended %d times, %d meters left", ended, len(tr.meters))
		}
		leaveC, endC := join(a)
		if begun != 2 {
			t.Error("not begun anew")
		}
		leaveC()
		if err := <-endC; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestTransfersAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := quietTransfers()
		defer tr.close()
		var mu sync.Mutex // guards running and most
		running, most := 0, 0
		ends := make(chan error)
		const n = 3 * maxTransfers
		for i := range n {
			go func() { // ends when its transfer does
				l := newLayerProgress()
				ends <- tr.join(t.Context(), transferKey{slot: "x", fill: i%2 == 0, diffID: digest.FromString(fmt.Sprint(i))}, l, func(context.Context, *meter) error {
					mu.Lock()
					running++
					most = max(most, running)
					mu.Unlock()
					<-time.After(time.Second)
					mu.Lock()
					defer mu.Unlock()
					running--
					return nil
				})
			}()
		}
		for range n {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
		if most != maxTransfers {
			t.Errorf("%d at once", most)
		}
	})
}
