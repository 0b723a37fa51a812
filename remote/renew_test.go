package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
)

// A token that ends while the request that carries it waits is no refusal.
func TestTokenEndsOnTheWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(1000)
		tokens, slow := 0, 2
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				tokens++
				fmt.Fprintf(w, `{"token":"t%d","expires_in":2}`, tokens)
			case r.Header.Get("Authorization") != "" && slow == 0:
				serveBlob(w, r, content)
			default:
				if r.Header.Get("Authorization") != "" {
					slow--
					rest(r, 3*time.Second)
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+wired+`/token",service="s"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		got, err := readRange(t.Context(), c.Open(ref, d), 5, 100)
		if err != nil || !bytes.Equal(got, content[5:105]) || tokens != 3 {
			t.Errorf("%d tokens, %v", tokens, err)
		}
	})
}

// Signed addresses of three seconds are used for most of their life, and asked
// for anew in time.
func TestShortRedirects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := noise(10_000)
		signed, late := 0, 0
		c, stop := wireClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			end := time.Now().Truncate(time.Second).Add(3 * time.Second)
			if isBlob(r) {
				signed++
				http.Redirect(w, r, fmt.Sprintf("http://%s/data?Expires=%d", wired, end.Unix()), http.StatusTemporaryRedirect)
				return
			}
			if ends := expiry(r.URL); !time.Now().Before(ends) {
				late++
				w.WriteHeader(http.StatusForbidden)
				return
			}
			serveBlob(w, r, content)
		}))
		defer stop()
		ref, d := blobRef(t, wired, content)
		b := c.Open(ref, d)
		for i := range int64(100) {
			wantRange(t, b, content, i, 100)
			time.Sleep(300 * time.Millisecond) //nolint:forbidigo // the clock of the bubble
		}
		if signed < 10 || signed > 15 || late > 0 {
			t.Errorf("%d addresses for 30 s, %d requests came late", signed, late)
		}
	})
}

// An address that ended before it could be used is asked for once more.
func TestRedirectEndsOnTheWay(t *testing.T) {
	t.Parallel()
	for _, code := range []int{401, 403, 404, 410} {
		s := newStore(t)
		s.faults = status(code)
		_, b := s.open(t)
		wantRange(t, b, s.content, 0, 500)
		if got := s.asked(); got != [2]int{3, 2} {
			t.Errorf("%d: %v requests", code, got)
		}
	}
}

// A place that wants to be left alone is.
func TestRedirectTargetLimits(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.faults = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			return false
		}
		w.Header().Set("Retry-After", "900")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	_, b := s.open(t)
	wantRange(t, b, s.content, 0, 500)
	for range 2 {
		if _, err := readRange(t.Context(), b, 0, 500); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "asks to wait 15m0s") {
			t.Errorf("error %v", err)
		}
	}
	if got := s.asked(); got[1] != 2 {
		t.Errorf("%v requests", got)
	}
}

// A token server that wants to be left alone is.
func TestTokenServerLimits(t *testing.T) {
	t.Parallel()
	r := newTokenRegistry(t)
	var limit atomic.Bool
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if limit.Load() {
			w.Header().Set("Retry-After", "900")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		r.issue(w)
	})
	r.answer.Store(&h)
	limit.Store(true)
	state := t.TempDir()
	for range 2 {
		c := newClient(t, Options{StateDir: state})
		_, _, err := c.Manifest(t.Context(), named(t, r.registry.addr()+"/a/b"))
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "asks to wait 15m0s") || !strings.Contains(err.Error(), r.realm.addr()) {
			t.Errorf("error %v", err)
		}
	}
	if n := len(r.realm.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestWarningsShownOnce(t *testing.T) {
	t.Parallel()
	warnings := []string{`299 - "old"`, `299 - "old"`, "299 - \"\x9b31mred\u202e\"", `199 - "not this"`}
	s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, text := range warnings {
			w.Header().Add("Warning", text)
		}
		io.WriteString(w, imageManifest) //nolint:errcheck // the client tells
	})
	var logged bytes.Buffer
	log := logrus.New()
	log.SetOutput(&logged)
	c := newClient(t, Options{Log: logrus.NewEntry(log)})
	for range 3 {
		if _, _, err := c.Manifest(t.Context(), named(t, s.addr()+"/a/b")); err != nil {
			t.Fatal(err)
		}
	}
	out := logged.String()
	if n := strings.Count(out, "registry warns"); n != 2 || !strings.Contains(out, "old") || strings.Contains(out, "\u202e") || strings.Contains(out, "\x9b") {
		t.Errorf("%d warnings:\n%q", n, out)
	}
}
