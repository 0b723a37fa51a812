package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow returns work that delivers each key's double after d, and counts runs.
func slow(d time.Duration, runs *atomic.Int32) Work[int, int] {
	return func(ctx context.Context, claimed []int, deliver func(int, int, error)) {
		runs.Add(1)
		for _, k := range claimed {
			select {
			case <-ctx.Done():
				deliver(k, 0, ctx.Err())
			case <-time.After(d):
				deliver(k, 2*k, nil)
			}
		}
	}
}

func collect(into *[]int) func(int, int) {
	return func(_, v int) { *into = append(*into, v) }
}

func discard(int, int) {}

func TestWorkIsSharedByAllWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](Grace)
		defer g.Close()
		var runs atomic.Int32
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				var got []int
				err := g.Do(t.Context(), Request[int, int]{Want: []int{1, 2}, Work: slow(time.Second, &runs), Got: collect(&got)})
				if diff := cmp.Diff([]int{2, 4}, got); err != nil || diff != "" {
					t.Errorf("error %v, values %s", err, diff)
				}
			})
		}
		wg.Wait()
		if runs.Load() != 1 {
			t.Errorf("%d pieces of work, want 1", runs.Load())
		}
	})
}

func TestWaiterGetsKeysAsTheyCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](Grace)
		defer g.Close()
		var runs atomic.Int32
		work := slow(time.Second, &runs)
		start := time.Now()
		if err := g.Do(t.Context(), Request[int, int]{Want: []int{1}, Extra: []int{2, 3}, Work: work, Got: discard}); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v for the first of three keys, want 1s", waited)
		}
		var got []int
		if err := g.Do(t.Context(), Request[int, int]{Want: []int{3, 4}, Work: work, Got: collect(&got)}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{6, 8}, got); diff != "" || runs.Load() != 2 {
			t.Errorf("%d pieces of work, want 2; values %s", runs.Load(), diff)
		}
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("waited %v for a key under way and a new one, want 3s", waited)
		}
	})
}

func TestGrace(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		grace time.Duration
		away  time.Duration // between the interrupted reader's leaving and its return
		runs  int32
		total time.Duration // from the first Do to the value
	}{
		{"back within the grace joins", Grace, Grace - time.Nanosecond, 1, 10 * time.Second},
		{"back when the work has been given up starts afresh", Grace, Grace + time.Nanosecond, 2, 13*time.Second + time.Nanosecond},
		{"work without end of grace is joined", ToTheEnd, 8 * time.Second, 1, 10 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := New[int, int](tc.grace)
				defer g.Close()
				var runs atomic.Int32
				work := slow(10*time.Second, &runs)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := g.Do(ctx, Request[int, int]{Want: []int{7}, Work: work, Got: discard}); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("interrupted: %v", err)
				}
				<-time.After(tc.away)
				var got []int
				if err := g.Do(t.Context(), Request[int, int]{Want: []int{7}, Work: work, Got: collect(&got)}); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]int{14}, got); diff != "" || runs.Load() != tc.runs || time.Since(start) != tc.total {
					t.Errorf("%d pieces of work in %v, want %d in %v; values %s", runs.Load(), time.Since(start), tc.runs, tc.total, diff)
				}
			})
		})
	}
}

// A single-threaded reader that is interrupted every 100 ms must get through a
// fetch of 300 ms.
func TestInterruptedReaderMakesProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](Grace)
		defer g.Close()
		var runs atomic.Int32
		for try := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			err := g.Do(ctx, Request[int, int]{Want: []int{1}, Work: slow(250*time.Millisecond, &runs), Got: discard})
			cancel()
			if err == nil {
				if try != 2 || runs.Load() != 1 {
					t.Errorf("try %d, %d pieces of work; want 2, 1", try, runs.Load())
				}
				return
			}
		}
		t.Error("no progress")
	})
}

func TestExtraWorkIsGivenUpAfterTheGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](Grace)
		defer g.Close()
		start := time.Now()
		var ended time.Duration
		err := g.Do(t.Context(), Request[int, int]{Extra: []int{1}, Work: func(ctx context.Context, _ []int, _ func(int, int, error)) {
			<-ctx.Done()
			ended = time.Since(start)
		}})
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if ended != Grace {
			t.Errorf("ended after %v, want %v", ended, Grace)
		}
	})
}

// Work that is slow to notice that it was given up must not hold its keys.
func TestAbandonedWorkOwnsNoKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](Grace)
		defer g.Close()
		stubborn := func(_ context.Context, _ []int, deliver func(int, int, error)) {
			<-time.After(time.Hour)
			deliver(1, -1, nil)
		}
		if err := g.Do(t.Context(), Request[int, int]{Extra: []int{1}, Work: stubborn}); err != nil {
			t.Fatal(err)
		}
		<-time.After(Grace + 1)
		var runs atomic.Int32
		var got []int
		err := g.Do(t.Context(), Request[int, int]{Want: []int{1}, Work: slow(2*time.Hour, &runs), Got: collect(&got)})
		if diff := cmp.Diff([]int{2}, got); err != nil || diff != "" || runs.Load() != 1 {
			t.Errorf("error %v, %d new pieces of work, values %s", err, runs.Load(), diff)
		}
	})
}

// Whoever joins work may tell it so, by way of its context, but only work that
// others began, and that wanted keys come from.
func TestJoined(t *testing.T) {
	t.Parallel()
	type key struct{}
	for _, tc := range []struct {
		name        string
		want, extra []int
		joined      int
	}{
		{"wanted", []int{1, 3}, []int{2}, 1},
		{"of two pieces", []int{1, 2}, nil, 2},
		{"extra", []int{3}, []int{1, 2}, 0},
		{"nobody else's", []int{3}, []int{4}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := New[int, int](Grace)
				defer g.Close()
				var runs atomic.Int32
				for i := range 2 {
					ctx := context.WithValue(t.Context(), key{}, "other")
					if err := g.Do(ctx, Request[int, int]{Extra: []int{i + 1}, Work: slow(time.Second, &runs)}); err != nil {
						t.Fatal(err)
					}
				}
				joined := 0
				err := g.Do(t.Context(), Request[int, int]{
					Want: tc.want, Extra: tc.extra, Work: slow(time.Second, &runs), Got: discard,
					Joined: func(work context.Context) {
						joined++
						if work.Value(key{}) != "other" || work.Err() != nil {
							t.Errorf("joined %v", work)
						}
					},
				})
				if err != nil || joined != tc.joined {
					t.Errorf("joined %d pieces of work, want %d; %v", joined, tc.joined, err)
				}
			})
		})
	}
}

// A Hold keeps work going that nobody waits for, and Settle waits for the end of
// it, come what may.
func TestHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](Grace)
		defer g.Close()
		start := time.Now()
		h, err := g.Begin(t.Context(), Request[int, int]{Extra: []int{1, 2, 3}, Work: func(_ context.Context, claimed []int, deliver func(int, int, error)) {
			for _, k := range claimed[:2] {
				<-time.After(time.Minute)
				deliver(k, k, errors.New("broken"))
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(90 * time.Second)
		if g.Has(1) || !g.Has(2) {
			t.Errorf("works on the first %v, on the second %v", g.Has(1), g.Has(2))
		}
		if err := h.Settle(t.Context()); err != nil || time.Since(start) != 2*time.Minute {
			t.Errorf("settled after %v: %v", time.Since(start), err)
		}
		h.Leave()
		var runs atomic.Int32
		h, err = g.Begin(t.Context(), Request[int, int]{Extra: []int{1}, Work: slow(time.Hour, &runs)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Settle(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("settled with %v", err)
		}
		h.Leave()
	})
}

func TestErrorsReachOnlyTheirWaiters(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	work := func(_ context.Context, _ []string, deliver func(string, int, error)) {
		deliver("good", 1, nil)
		deliver("bad", 0, broken)
	}
	for _, tc := range []struct {
		name string
		want []string
		err  error
	}{
		{"delivered", []string{"good"}, nil},
		{"failed", []string{"good", "bad"}, broken},
		{"forgotten", []string{"good", "forgotten", "bad"}, ErrUndelivered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := New[string, int](Grace)
			defer g.Close()
			err := g.Do(t.Context(), Request[string, int]{
				Want: tc.want, Extra: []string{"good", "bad", "forgotten"}, Work: work, Got: func(string, int) {},
			})
			if !errors.Is(err, tc.err) {
				t.Errorf("error %v, want %v", err, tc.err)
			}
		})
	}
}

func TestCloseEndsWorkAndWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](Grace)
		var runs atomic.Int32
		failed := make(chan error, 2)
		for i := range 2 {
			go func() {
				failed <- g.Do(t.Context(), Request[int, int]{Want: []int{i}, Work: slow(time.Hour, &runs), Got: discard})
			}()
		}
		synctest.Wait()
		g.Close()
		for range 2 {
			if err := <-failed; !errors.Is(err, ErrClosed) {
				t.Errorf("waiter got %v, want %v", err, ErrClosed)
			}
		}
		if err := g.Do(t.Context(), Request[int, int]{Want: []int{1}, Work: slow(0, &runs), Got: discard}); !errors.Is(err, ErrClosed) || runs.Load() != 2 {
			t.Errorf("after Close: %v, %d pieces of work", err, runs.Load())
		}
	})
}

func TestWorkKeepsTheValuesOfItsStarter(t *testing.T) {
	t.Parallel()
	type key struct{}
	g := New[int, any](Grace)
	defer g.Close()
	var got any
	err := g.Do(context.WithValue(t.Context(), key{}, "trace"), Request[int, any]{
		Want: []int{1},
		Work: func(ctx context.Context, _ []int, deliver func(int, any, error)) { deliver(1, ctx.Value(key{}), nil) },
		Got:  func(_ int, v any) { got = v },
	})
	if err != nil || got != "trace" {
		t.Errorf("value %v, error %v", got, err)
	}
}

// Many goroutines ask for overlapping keys and leave at random times: each
// value is right, no error appears but the asker's own, and all state is gone
// at the end.
func TestManyFickleWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[int, int](3 * time.Millisecond)
		var runs, served atomic.Int32
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for j := range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i*7+j*13)%40)*time.Millisecond)
					k := (i + j) % 10
					err := g.Do(ctx, Request[int, int]{
						Want: []int{k, k + 1}, Extra: []int{k + 2}, Work: slow(5*time.Millisecond, &runs),
						Got: func(k, v int) {
							served.Add(1)
							if v != 2*k {
								t.Errorf("key %d has value %d", k, v)
							}
						},
					})
					if err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		g.Close()
		if left := fmt.Sprint(len(g.flights), len(g.pieces)); left != "0 0" || served.Load() == 0 {
			t.Errorf("flights and pieces left: %s; served %d", left, served.Load())
		}
	})
}
