package remote

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/priority"
)

func gateAt(t *testing.T, dir string, slots int) *gate {
	t.Helper()
	o, err := Options{StateDir: dir, MaxPerHost: slots, HostsDir: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(o)
	t.Cleanup(g.close)
	return g
}

func enter(t *testing.T, g *gate) func() {
	t.Helper()
	leave, err := g.enter(t.Context(), "h", always(priority.Demand))
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

func always(c priority.Class) func() priority.Class { return func() priority.Class { return c } }

// slotsOf counts the slots that a gate has of h.
func slotsOf(g *gate) int {
	f := g.file("h")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

func TestGateSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := gateAt(t, dir, 2), gateAt(t, dir, 2)
		var all []func()
		for range 2 * machineShare {
			all = append(all, enter(t, a))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.enter(ctx, "h", always(priority.Demand)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no slot is free: %v", err)
		}
		if leave, err := b.enter(t.Context(), "other", always(priority.Demand)); err != nil {
			t.Errorf("another host: %v", err)
		} else {
			leave()
		}
		start := time.Now()
		go func() {
			time.Sleep(time.Second) //nolint:forbidigo // the clock of the bubble
			all[1]()
		}()
		leave := enter(t, b)
		if d := time.Since(start); d < time.Second || d > time.Second+2*lastPoll || slotsOf(b) != 1 {
			t.Errorf("%d slots after %v, one was given back after 1 s", slotsOf(b), d)
		}
		start = time.Now()
		enter(t, b)() // others may have been stopped
		if d := time.Since(start); d < longestQueue || d > longestQueue+time.Second || slotsOf(b) != 1 {
			t.Errorf("%d slots after %v", slotsOf(b), d)
		}
		start = time.Now()
		for range 10 {
			enter(t, b)() // nor does each wait for those
		}
		if d := time.Since(start); d > 10*courtesy {
			t.Errorf("10 more after %v", d)
		}
		leave()
		all[0]()
		all[2]()
		all[3]()
		if slotsOf(a) != 0 || slotsOf(b) != 0 {
			t.Errorf("%d and %d slots are held", slotsOf(a), slotsOf(b))
		}
	})
}

// entering is the slot that somebody may get, in time.
func entering(t *testing.T, g *gate, class func() priority.Class) <-chan func() {
	t.Helper()
	got := make(chan func(), 1)
	go func() {
		leave, err := g.enter(t.Context(), "h", class)
		if err != nil {
			t.Error(err)
			return
		}
		got <- leave
	}()
	return got
}

// Half of the slots are for demands only, and so is what is free of the other
// half as long as one waits.
func TestGateClasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const half = 3
		dir := t.TempDir()
		a, b := gateAt(t, dir, half), gateAt(t, dir, half)
		began := time.Now()
		after := func(what string, most time.Duration) {
			t.Helper()
			if d := time.Since(began); d > most {
				t.Errorf("%s: after %v", what, d)
			}
			began = time.Now()
		}
		var held []func()
		for i := range half {
			held = append(held, <-entering(t, a, always(priority.Class(1+i%2))))
		}
		after("the first half is for all", 0)
		ctx := as(t, priority.Fill)
		raised := entering(t, b, func() priority.Class { return priority.Of(ctx) })
		fill := entering(t, b, always(priority.Fill))
		prefetch := entering(t, b, always(priority.Prefetch))
		time.Sleep(time.Second) //nolint:forbidigo // the clock of the bubble
		if n := slotsOf(b); n != 0 {
			t.Errorf("others have %d slots of the half that is for demands", n)
		}
		began = time.Now()
		var demands []func()
		for range half - 1 {
			demands = append(demands, enter(t, a))
		}
		after("a demand makes way for nothing of a lower class", 0)
		priority.Raise(ctx, priority.Demand)
		demands = append(demands, <-raised)
		after("raised while it waits", lastPoll)
		first, second := entering(t, b, always(priority.Demand)), entering(t, a, always(priority.Demand))
		time.Sleep(2 * courtesy) //nolint:forbidigo // the clock of the bubble
		held[0]()
		held[1]()
		demands = append(demands, <-first, <-second)
		if n := len(fill) + len(prefetch); n != 0 {
			t.Errorf("%d went before a demand", n)
		}
		for _, leave := range append(demands, held[2:]...) {
			leave()
		}
		(<-fill)()
		(<-prefetch)()
		if slotsOf(a) != 0 || slotsOf(b) != 0 {
			t.Errorf("%d and %d slots are held", slotsOf(a), slotsOf(b))
		}
	})
}

// That those of lower classes have waited in vain says nothing of what demands
// may expect.
func TestGateVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := gateAt(t, dir, 1), gateAt(t, dir, 1)
		leave := []func(){enter(t, a), enter(t, a)}
		start := time.Now()
		(<-entering(t, b, always(priority.Fill)))()
		if d := time.Since(start); d < longestQueue {
			t.Errorf("a fill went on after %v", d)
		}
		demand := entering(t, b, always(priority.Demand))
		time.Sleep(time.Second) //nolint:forbidigo // the clock of the bubble
		if len(demand) != 0 {
			t.Error("a demand did not wait for a slot")
		}
		leave[0]()
		(<-demand)()
		leave[1]()
	})
}

// A client that always has something to ask does not keep others out.
func TestGateFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := gateAt(t, dir, 2), gateAt(t, dir, 2)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					leave, err := a.enter(t.Context(), "h", always(priority.Demand))
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond) //nolint:forbidigo // the clock of the bubble
					leave()
				}
			})
		}
		for range 20 {
			start := time.Now()
			leave := enter(t, b)
			if d := time.Since(start); d > time.Second || slotsOf(b) != 1 {
				t.Errorf("%d slots after %v", slotsOf(b), d)
			}
			leave()
		}
		close(stop)
		wg.Wait()
	})
}

func TestGateUnusable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	log := logrus.New()
	log.SetOutput(&logged)
	content := noise(5000)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{StateDir: file, Log: logrus.NewEntry(log)})
	ref, d := blobRef(t, s.addr(), content)
	for range 3 {
		wantRange(t, c.Open(ref, d), content, 1, 1000)
	}
	if n := strings.Count(logged.String(), "level=warning"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, &logged)
	}
}

// What one client was told, all obey, and nobody who was not told.
func TestRetryAfterShared(t *testing.T) {
	t.Parallel()
	content := noise(5000)
	var limit atomic.Bool
	limit.Store(true)
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		if limit.Load() {
			w.Header().Set("Retry-After", "300")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		serveBlob(w, r, content)
	})
	state := filepath.Join(t.TempDir(), "deeper", "state")
	ref, d := blobRef(t, s.addr(), content)
	for i := range 3 {
		c := newClient(t, Options{StateDir: state, Retry: Retry{Budget: time.Minute}})
		_, err := readRange(t.Context(), c.Open(ref, d), 5, 100)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "asks to wait 5m0s") || !strings.Contains(err.Error(), s.addr()) {
			t.Errorf("client %d: %v", i, err)
		}
		if _, _, err := c.Manifest(t.Context(), ref); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "asks to wait ") {
			t.Errorf("client %d: manifest: %v", i, err)
		}
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d requests to a host that wants none", n)
	}
	limit.Store(false)
	wantRange(t, newClient(t, Options{StateDir: t.TempDir()}).Open(ref, d), content, 5, 100)
	wantRange(t, newClient(t, Options{}).Open(ref, d), content, 5, 100)
	files, err := os.ReadDir(state)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if fi, err := files[0].Info(); err != nil || fi.Mode().Perm() != 0o600 || fi.Size() > maxRecord {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestRetryAfterObeyed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(5000)
		n := 0
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 1 {
				w.Header().Set("Retry-After", "25")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			serveBlob(w, r, content)
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { wantRange(t, b, content, 5, 100) })
		wg.Go(func() {
			time.Sleep(time.Second) //nolint:forbidigo // the clock of the bubble
			wantRange(t, b, content, 500, 100)
		})
		wg.Wait()
		if d := time.Since(start); d < 25*time.Second || d > 27*time.Second || n != 3 {
			t.Errorf("%d requests, %v", n, d)
		}
	})
}

// A mirror that wants to be left alone is passed over at once.
func TestRetryAfterOfMirror(t *testing.T) {
	t.Parallel()
	content := noise(5000)
	mirror := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3000")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	origin := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{HostsDir: hostsDir(t, origin.addr(), "server = \""+origin.URL+"\"\n[host.\""+mirror.URL+"\"]\n")})
	ref, d := blobRef(t, origin.addr(), content)
	for i := range int64(5) {
		wantRange(t, c.Open(ref, d), content, i, 100)
	}
	if m := len(mirror.requests()); m != 1 {
		t.Errorf("%d requests to the mirror", m)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("peel 1 1767323045000 r.example:5000\n")
	f.Add("peel 1 -5 h\n")
	f.Add("peel 1 99999999999999999999 h")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		until, host := parseRecord(s)
		if host == "" {
			return
		}
		again, of := parseRecord(record(host, until))
		if of != host || !again.Equal(until) {
			t.Fatalf("%q: %v %q, again %v %q", s, until, host, again, of)
		}
	})
}

func BenchmarkGate(b *testing.B) {
	o, err := Options{StateDir: b.TempDir(), HostsDir: b.TempDir()}.withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	g := newGate(o)
	defer g.close()
	for b.Loop() {
		leave, err := g.enter(b.Context(), "h", always(priority.Demand))
		if err == nil {
			err = g.rests("h")
		}
		if err != nil {
			b.Fatal(err)
		}
		leave()
	}
}
