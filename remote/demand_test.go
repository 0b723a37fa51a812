package remote

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	line "github.com/peelfs/peel/internal/link"
	"github.com/peelfs/peel/internal/priority"
)

// reading reads a range and tells when it is done.
func reading(ctx context.Context, b *Blob, off, n int64) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := readRange(ctx, b, off, n)
		done <- err
	}()
	return done
}

// Bodies of a lower class make way for a demand, go on at once when they are
// raised, and are not taken for stalled.
func TestPauseForDemand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(1 << 20)
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
		c, end := optionWire(t, &http.Server{Handler: h}, Options{Retry: Retry{Progress: 2 * time.Second, Budget: 4 * time.Second}})
		defer func() { end(); synctest.Wait() }()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		wantRange(t, b, content, 1, 1) // now it is known who serves

		ctx := as(t, priority.Prefetch)
		low, err := b.ReadRange(ctx, 100, 500_000)
		if err != nil {
			t.Fatal(err)
		}
		defer low.Close()
		want := func(what string, wait time.Duration) {
			t.Helper()
			start := time.Now()
			if _, err := low.Read(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d != wait {
				t.Errorf("%s: waited %v", what, d)
			}
		}
		want("alone", 0)
		demand, err := b.ReadRange(t.Context(), 5, 500_000)
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			want("beside a demand that goes on", longestPause)
		}
		time.AfterFunc(300*time.Millisecond, func() {
			if err := demand.Close(); err != nil {
				t.Error(err)
			}
		})
		want("until the demand ended", 300*time.Millisecond)
		want("alone again", 0)

		if demand, err = b.ReadRange(t.Context(), 5, 500_000); err != nil {
			t.Fatal(err)
		}
		defer demand.Close()
		time.AfterFunc(300*time.Millisecond, func() { priority.Raise(ctx, priority.Demand) })
		want("until raised", 300*time.Millisecond)
		want("raised", 0)
		if n := c.Stats().Retries; n != 0 {
			t.Errorf("%d retries", n)
		}
	})
}

// A demand never waits behind another class by more than one range under way.
func TestDemandAmongPrefetches(t *testing.T) {
	t.Parallel()
	const bandwidth, trip = 10e6, 40 * time.Millisecond
	const size = 512 << 10
	oneRange := time.Duration(size * 8 * float64(time.Second) / bandwidth)
	content := noise(32 * size)
	for _, tt := range []struct {
		name  string
		class priority.Class
		n     int64 // of the demand
	}{
		{"short, prefetches", priority.Prefetch, 32 << 10},
		{"long, prefetches", priority.Prefetch, size},
		{"short, fills", priority.Fill, 32 << 10},
		{"long, fills", priority.Fill, size},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, stop := farClient(t, &line.Link{RoundTrip: trip, Bandwidth: bandwidth}, content, Options{})
				defer stop()
				ask := func() time.Duration {
					start := time.Now()
					wantRange(t, b, content, 7, tt.n)
					return time.Since(start)
				}
				ask()
				alone := ask()
				ctx, cancel := context.WithCancel(as(t, tt.class))
				var others []<-chan error
				for i := range int64(30) {
					others = append(others, reading(ctx, b, i*size, size))
				}
				time.Sleep(time.Second) //nolint:forbidigo // the clock of the bubble
				for range 5 {
					// A connection for it may have to be made.
					if d := ask(); d > alone+trip+oneRange {
						t.Errorf("took %v, alone %v, a range of others %v", d, alone, oneRange)
					}
				}
				cancel()
				done := 0
				for _, other := range others {
					if <-other == nil {
						done++
					}
				}
				if done == len(others) {
					t.Error("the others were done before")
				}
			})
		})
	}
}

// All that are queued come through in the end, and demands with them.
func TestClassesTogether(t *testing.T) {
	t.Parallel()
	content := noise(1 << 20)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{MaxPerHost: 5, RequestRate: 5000})
	ref, d := blobRef(t, s.addr(), content)
	b := c.Open(ref, d)
	var wg sync.WaitGroup
	var got []error
	var mu sync.Mutex
	for i := range int64(120) {
		ctx := as(t, priority.Class(i%3))
		wg.Go(func() {
			if i%7 == 0 {
				defer priority.Raise(ctx, priority.Demand)
			}
			_, err := readRange(ctx, b, i*1000, 50_000)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, err)
		})
		if i%10 == 0 {
			priority.Raise(ctx, priority.Demand)
		}
	}
	wg.Wait()
	if err := errors.Join(got...); err != nil {
		t.Error(err)
	}
	if len(c.limiter.hosts) != 0 {
		t.Error("slots are lost")
	}
}
