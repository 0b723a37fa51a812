//go:build linux

package testkit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const signingKey = "only for tests"

// hop redirects to a signed URL of the server that has the blobs.
func (g *Guarded) hop(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/hop")
	expires := strconv.FormatInt(time.Now().Add(g.guard.URLLife).Unix(), 10)
	q := url.Values{"Expires": {expires}, "Signature": {signature(path, expires)}}
	to := url.URL{Scheme: "http", Host: g.Blobs.Host(), Path: path, RawQuery: q.Encode()}
	http.Redirect(w, r, to.String(), http.StatusFound)
}

// blob answers as object stores do: signed URLs only, with ranges, and not for
// whoever comes with credentials of another kind as well.
func (g *Guarded) blob(w http.ResponseWriter, r *http.Request) {
	expires := r.URL.Query().Get("Expires")
	at, err := strconv.ParseInt(expires, 10, 64)
	switch {
	case err != nil || !hmac.Equal([]byte(r.URL.Query().Get("Signature")), []byte(signature(r.URL.Path, expires))):
		storeError(w, http.StatusForbidden, "SignatureDoesNotMatch")
		return
	case r.Header.Get("Authorization") != "":
		storeError(w, http.StatusBadRequest, "InvalidArgument")
		return
	case time.Now().After(time.Unix(at, 0)):
		g.mu.Lock()
		g.stale++
		g.mu.Unlock()
		storeError(w, http.StatusForbidden, "AccessDenied")
		return
	}
	r.URL.RawQuery = ""
	g.next.ServeHTTP(w, r)
}

func storeError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, fmt.Sprintf(`<?xml version="1.0"?><Error><Code>%s</Code></Error>`, code))
}

func signature(path, expires string) string {
	mac := hmac.New(sha256.New, []byte(signingKey))
	_, _ = io.WriteString(mac, path+"\n"+expires)
	return hex.EncodeToString(mac.Sum(nil))
}
