//go:build linux

package testkit

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"
)

// NewFiles starts a plain HTTP server of files, by path, in ranges as asked.
func NewFiles(t testing.TB, files map[string][]byte) Server {
	t.Helper()
	return newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
}
