//go:build linux

package testkit

import (
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
)

// A Wire is the head of a request as it arrived, before anything was made of
// it.
type Wire struct {
	Method, URI, Host, Proto string
	Header                   http.Header
}

// secretHeaders are those that browsers and clients keep to one origin.
var secretHeaders = []string{"Authorization", "Proxy-Authorization", "Cookie"}

// Harmless fails the test if one of the requests carries a header that is for
// one host alone, or any of the words, wherever it stands. Whoever got the
// requests is named by who.
func Harmless(t testing.TB, who string, requests []Wire, words ...string) {
	t.Helper()
	for _, r := range requests {
		for _, name := range secretHeaders {
			if v := r.Header.Values(name); len(v) > 0 {
				t.Errorf("%s was sent %s: %q with %s %.80s", who, name, v, r.Method, r.URI)
			}
		}
		for _, w := range words {
			if carries(r, w) {
				t.Errorf("%s was sent %q with %s %.80s: %v", who, w, r.Method, r.URI, r.Header)
			}
		}
	}
}

// Carried reports whether one of the requests has the word in it.
func Carried(requests []Wire, word string) bool {
	for _, r := range requests {
		if carries(r, word) {
			return true
		}
	}
	return false
}

func carries(r Wire, word string) bool {
	if strings.Contains(r.URI, word) {
		return true
	}
	for name, values := range r.Header {
		for _, v := range values {
			if strings.Contains(name+": "+v, word) {
				return true
			}
		}
	}
	return false
}

// quiet is for what http.Server says of connections that tests break.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
