package remote

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// store is a registry with basic authentication that redirects blobs to signed
// addresses of another host.
type store struct {
	registry, cdn *host
	content       []byte
	valid         atomic.Pointer[string] // signature that the other host takes
	signed        atomic.Int64
	lifetime      atomic.Int64 // seconds, told in the address
	refuse        atomic.Int64 // status for other signatures
	faults        script
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{content: noise(200_000)}
	s.lifetime.Store(3600)
	s.refuse.Store(http.StatusForbidden)
	s.valid.Store(new(string))
	s.cdn = newHost(t, func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			t.Errorf("the other host got %q", a)
		}
		if r.URL.Query().Get("sig") != *s.valid.Load() {
			w.WriteHeader(int(s.refuse.Load()))
			return
		}
		if s.faults == nil || !s.faults(len(s.cdn.requests())-1, w, r) {
			serveBlob(w, r, s.content)
		}
	})
	s.registry = newHost(t, challenge(func(w http.ResponseWriter, r *http.Request) {
		sig := fmt.Sprintf("secret%d", s.signed.Add(1))
		s.valid.Store(&sig)
		q := url.Values{"sig": {sig}, "Expires": {fmt.Sprint(time.Now().Unix() + s.lifetime.Load())}}
		http.Redirect(w, r, s.cdn.URL+"/data?"+q.Encode(), http.StatusTemporaryRedirect)
	}))
	return s
}

func (s *store) open(t *testing.T) (*Client, *Blob) {
	t.Helper()
	c := newClient(t, Options{Keychain: keys{
		s.registry.addr(): authn.AuthConfig{Username: "user", Password: "pass"},
		s.cdn.addr():      authn.AuthConfig{Username: "never", Password: "sent"},
	}})
	ref, d := blobRef(t, s.registry.addr(), s.content)
	return c, c.Open(ref, d)
}

// asked counts the requests to the registry and to the other host.
func (s *store) asked() [2]int { return [2]int{len(s.registry.requests()), len(s.cdn.requests())} }

func TestRedirectRemembered(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	_, b := s.open(t)
	for i := range int64(5) {
		wantRange(t, b, s.content, i*1000, 500)
	}
	if got := s.asked(); got != [2]int{2, 5} { // one 401, one redirect
		t.Errorf("%v requests", got)
	}
	if r := s.cdn.requests()[0]; r.Header.Get("Range") != "bytes=0-499" || r.Header.Get("Referer") == "" {
		t.Errorf("other host got %v", r.Header)
	}
}

func TestLocationUsable(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		query string
		want  time.Duration // how long it is used; 0: until it is refused
	}{
		{"no end", "", 0},
		{"an hour", "Expires=" + fmt.Sprint(now.Add(time.Hour).Unix()), time.Hour - expiryMargin},
		{"three seconds", "Expires=" + fmt.Sprint(now.Add(3*time.Second).Unix()), 2250 * time.Millisecond},
		{"ended, by our clock", "Expires=" + fmt.Sprint(now.Add(-time.Second).Unix()), 0},
	} {
		l := newLocation(nil, &answer{url: mustURL(t, "https://cdn.example/x?"+tt.query)}, now)
		if tt.want == 0 {
			if !l.usable(now.Add(1000 * time.Hour)) {
				t.Errorf("%s: not used", tt.name)
			}
			continue
		}
		if !l.usable(now.Add(tt.want-time.Millisecond)) || l.usable(now.Add(tt.want)) {
			t.Errorf("%s: used until %v", tt.name, l.until)
		}
	}
}

func TestRedirectRefused(t *testing.T) {
	t.Parallel()
	for _, code := range []int64{400, 401, 403, 404, 410, 500} {
		s := newStore(t)
		s.refuse.Store(code)
		_, b := s.open(t)
		wantRange(t, b, s.content, 0, 500)
		sig := "ended"
		s.valid.Store(&sig)
		wantRange(t, b, s.content, 0, 500)
		if got := s.asked(); got != [2]int{3, 3} { // one refusal more on each side
			t.Errorf("%d: %v requests", code, got)
		}
	}
}

// A new address that is refused, too, is the end, not a loop.
func TestRedirectAlwaysRefused(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.faults = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(403); return true }
	c, b := s.open(t)
	_, err := readRange(t.Context(), b, 0, 500)
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), s.cdn.addr()) {
		t.Errorf("error %v", err)
	}
	if strings.Contains(err.Error()+c.Stats().LastError, "secret") {
		t.Errorf("signature shown: %v", err)
	}
	if got := s.asked(); got != [2]int{3, 2} {
		t.Errorf("%v requests", got)
	}
}

func TestRedirectTargetDown(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	c, b := s.open(t)
	wantRange(t, b, s.content, 0, 500)
	s.cdn.CloseClientConnections()
	s.cdn.Close()
	_, err := readRange(t.Context(), b, 0, 500)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), s.cdn.addr()) {
		t.Errorf("error %v", err)
	}
	if strings.Contains(err.Error()+c.Stats().LastError, "secret") {
		t.Errorf("signature shown: %v", err)
	}
}

// A body that dies at the other host is resumed there, by a new address.
func TestRedirectBodyDies(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.faults = dies(s.content, 50_000)
	_, b := s.open(t)
	wantRange(t, b, s.content, 100, 150_000)
	if got := s.asked(); got != [2]int{3, 2} {
		t.Errorf("%v requests", got)
	}
	if got := s.cdn.ranges()[1]; got != "bytes=50100-150099" {
		t.Errorf("resumed with %q", got)
	}
}

// An address whose host breaks connections is forgotten. The first break is
// hidden by net/http, which sends a GET again if a used connection is closed.
func TestRedirectConnectionBreaks(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.faults = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 1 || n == 2 {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	_, b := s.open(t)
	wantRange(t, b, s.content, 0, 500)
	wantRange(t, b, s.content, 0, 500)
	if got := s.asked(); got != [2]int{3, 4} {
		t.Errorf("%v requests", got)
	}
}

// When an address ends, many readers cause one request for another.
func TestRedirectRefreshedOnceByMany(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	_, b := s.open(t)
	for round := range 3 {
		sig := "ended"
		s.valid.Store(&sig)
		before := s.signed.Load()
		var wg sync.WaitGroup
		for i := range int64(16) {
			wg.Go(func() {
				if _, err := readRange(t.Context(), b, i*1000, 100); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := s.signed.Load() - before; n != 1 {
			t.Errorf("round %d: %d addresses asked for", round, n)
		}
	}
}

func TestRedirectLoop(t *testing.T) {
	t.Parallel()
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
	})
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), noise(10))
	if _, err := readRange(t.Context(), c.Open(ref, d), 0, 5); !errors.Is(err, ErrAnswer) {
		t.Errorf("error %v", err)
	}
	if n := len(s.requests()); n != maxHops+1 {
		t.Errorf("%d requests", n)
	}
}
