package layer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peelfs/peel/internal/priority"
)

// Of 100, work of lower classes gets 50; each case asks in order, and then
// everything is given back in the order in which it was got.
func TestQuota(t *testing.T) {
	t.Parallel()
	const demand, prefetch, fill = priority.Demand, priority.Prefetch, priority.Fill
	type ask struct {
		name  string
		class priority.Class
		n     int64
	}
	for _, tc := range []struct {
		name string
		asks []ask
		once []string // those who get it at once
		then []string // the others
	}{
		{"demand takes all", []ask{{"a", demand, 60}, {"b", demand, 40}, {"c", demand, 1}}, []string{"a", "b"}, []string{"c"}},
		{"others take half", []ask{{"a", prefetch, 30}, {"b", fill, 20}, {"c", prefetch, 1}, {"d", demand, 50}}, []string{"a", "b", "d"}, []string{"c"}},
		{"in order of class", []ask{{"a", demand, 100}, {"b", fill, 50}, {"c", prefetch, 50}, {"d", demand, 60}, {"e", prefetch, 50}}, []string{"a"}, []string{"d", "c", "e", "b"}},
		{"in order of time", []ask{{"a", demand, 90}, {"b", demand, 100}, {"c", demand, 5}}, []string{"a"}, []string{"b", "c"}},
		{"too long, by itself", []ask{{"a", demand, 1000}, {"b", demand, 10}}, []string{"a"}, []string{"b"}},
		{"too long for others, beside demand", []ask{{"a", demand, 50}, {"b", prefetch, 1000}, {"c", prefetch, 1}}, []string{"a", "b"}, []string{"c"}},
		{"too long, while others have their half", []ask{{"a", fill, 50}, {"b", demand, 1000}, {"c", demand, 1}}, []string{"a", "b"}, []string{"c"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := &quota{size: 100, low: 50}
				var mu sync.Mutex
				var got []string
				back := make(map[string]chan struct{})
				var wg sync.WaitGroup
				for _, a := range tc.asks {
					back[a.name] = make(chan struct{})
					wg.Go(func() {
						g, err := q.acquire(priority.With(t.Context(), a.class), a.n)
						if err != nil {
							t.Error(err)
						}
						mu.Lock()
						got = append(got, a.name)
						mu.Unlock()
						<-back[a.name]
						g.release()
					})
					synctest.Wait()
				}
				if diff := cmp.Diff(tc.once, got); diff != "" {
					t.Errorf("got at once (-want, +got):\n%s", diff)
				}
				for i := range tc.asks {
					close(back[got[i]])
					synctest.Wait()
					if q.used > q.size || q.usedLow > q.low {
						t.Errorf("%d used, %d by lower classes", q.used, q.usedLow)
					}
				}
				wg.Wait()
				if diff := cmp.Diff(tc.then, got[len(tc.once):]); diff != "" || q.taken() != 0 || len(q.waiting) != 0 {
					t.Errorf("%d left; got later (-want, +got):\n%s", q.used, diff)
				}
			})
		})
	}
}

// Who becomes more urgent overtakes; who leaves is in nobody's way.
func TestQuotaIsServedAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &quota{size: 100, low: 50}
		first, err := q.acquire(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var got []string
		var wg sync.WaitGroup
		ask := func(ctx context.Context, name string, n int64) {
			wg.Go(func() {
				g, err := q.acquire(ctx, n)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					got = append(got, name+" "+err.Error())
					return
				}
				got = append(got, name)
				g.release()
			})
			synctest.Wait()
		}
		gone, leave := context.WithCancelCause(t.Context())
		raised := priority.With(t.Context(), priority.Fill)
		ask(gone, "gone", 100)
		ask(priority.With(t.Context(), priority.Prefetch), "prefetch", 50)
		ask(raised, "raised", 60)
		priority.Raise(raised, priority.Demand)
		synctest.Wait()
		leave(errors.New("left"))
		synctest.Wait()
		first.release()
		wg.Wait()
		if diff := cmp.Diff([]string{"gone left", "raised", "prefetch"}, got); diff != "" || q.taken() != 0 {
			t.Errorf("%d left; got (-want, +got):\n%s", q.used, diff)
		}
	})
}

func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bottle(t, "estargz", 1000)
		tr := NewTraffic(TrafficOptions{})
		w := &wire{delay: time.Second}
		l := b.open(t, w, newShelf(b.x), Options{Traffic: tr})
		start := time.Now()
		idle := func() time.Duration {
			if err := tr.Idle(t.Context()); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if took := idle(); took != 0 {
			t.Errorf("idle after %v at the beginning", took)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := tr.Idle(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("idle during a read: %v", err)
		}
		if took := idle(); took < time.Second+quiet || took > time.Second+2*quiet {
			t.Errorf("idle after %v, the read took one second", took)
		}
		wg.Wait()
	})
}

// However many layers are read at once, in whatever class, what has left the wire
// and not yet reached a store stays within the memory that they share.
func TestMemoryIsSharedByLayers(t *testing.T) {
	t.Parallel()
	const layers, each, memory = 3, 24 << 20, 16 << 20
	for _, tc := range []struct {
		name  string
		class priority.Class
		most  int64
	}{{"demand", priority.Demand, memory}, {"prefetch", priority.Prefetch, memory / 2}, {"fill", priority.Fill, memory / 2}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := zeroes(each, 1<<20)
			synctest.Test(t, func(t *testing.T) {
				tr := NewTraffic(TrafficOptions{Memory: memory, NoGuess: true})
				open := make(chan struct{})
				var wg sync.WaitGroup
				var wires [layers]*wire
				for i := range wires {
					wires[i] = &wire{pace: time.Millisecond, piece: 64 << 10}
					l := b.open(t, wires[i], &jam{newShelf(b.x), open}, Options{Traffic: tr})
					wg.Go(func() {
						if err := l.Fill(priority.With(t.Context(), tc.class), nil); err != nil {
							t.Error(err)
						}
					})
				}
				<-time.After(time.Minute)
				synctest.Wait()
				var sum int64
				for _, w := range wires {
					sum += 2 * w.bytes.Load() // as it is in the blob and as it is decoded
				}
				if sum > tc.most || sum < tc.most/2 {
					t.Errorf("%d bytes on their way, want at most %d", sum, tc.most)
				}
				close(open)
				wg.Wait()
			})
		})
	}
}

// While others have all the memory and all the processors that they can get, a
// reader waits for none of it.
func TestDemandDoesNotWaitForOthers(t *testing.T) {
	t.Parallel()
	for _, class := range []priority.Class{priority.Prefetch, priority.Fill} {
		b := zeroes(24<<20, 1<<20)
		synctest.Test(t, func(t *testing.T) {
			tr := NewTraffic(TrafficOptions{Memory: 16 << 20})
			open := make(chan struct{})
			slow := b.open(t, &wire{}, &jam{newShelf(b.x), open}, Options{Traffic: tr})
			ctx := priority.With(t.Context(), class)
			var turns []grant
			for range tr.decoders.low {
				turn, err := tr.decoders.acquire(ctx, 1)
				if err != nil {
					t.Fatal(err)
				}
				turns = append(turns, turn)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := slow.Fill(ctx, nil); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			if tr.memory.usedLow < tr.memory.low/2 {
				t.Errorf("only %d bytes held", tr.memory.usedLow)
			}
			start := time.Now()
			l := b.open(t, &wire{delay: time.Second}, newShelf(b.x), Options{Traffic: tr})
			if _, err := l.ReadAt(t.Context(), make([]byte, 4<<20), 0); err != nil || time.Since(start) > time.Second {
				t.Errorf("read after %v: %v", time.Since(start), err)
			}
			close(open)
			for _, turn := range turns {
				turn.release()
			}
			wg.Wait()
		})
	}
}
