package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// Answers of unusual form: what is understood, what is refused.
func TestAnswerForms(t *testing.T) {
	t.Parallel()
	content := noise(50_000)
	const off, n = 100, 20_000
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		want  error
		says  string
	}{
		{"compressed", encoded("gzip", content), ErrAnswer, `Content-Encoding "gzip"`},
		{"deflated", encoded("deflate", content), ErrAnswer, `Content-Encoding "deflate"`},
		{"by brotli", encoded("br", content), ErrAnswer, `Content-Encoding "br"`},
		{"twice compressed", encoded("gzip, br", content), ErrAnswer, `Content-Encoding "gzip, br"`},
		{"as it is", encoded("identity", content), nil, ""},
		{"as it came into S3", encoded("aws-chunked", content), nil, ""},
		{"no type", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			serveBlob(w, r, content)
		}, nil, ""},
		{"chunked", func(w http.ResponseWriter, r *http.Request) {
			serveBlob(&flushed{ResponseWriter: w}, r, content)
		}, nil, ""},
		{"200 with a Content-Range", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, len(content)))
			w.Write(content[off : off+n]) //nolint:errcheck // the client tells
		}, nil, ""},
		{"one part", parts(content, window{off, n, int64(len(content))}), nil, ""},
		{"another part", parts(content, window{0, 50, int64(len(content))}), ErrRange, "0-49"},
		{"no part", parts(content), ErrUnreachable, "EOF"},
		{"no end of what comes before a part", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(http.StatusPartialContent)
			for r.Context().Err() == nil {
				io.WriteString(w, "about the parts\r\n") //nolint:errcheck // the client tells
			}
		}, ErrUnreachable, "EOF"},
		{"a part without a place", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "--x\r\n\r\nabc\r\n--x--\r\n") //nolint:errcheck // the client tells
		}, ErrRange, "Content-Range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, tt.serve)
			c := newClient(t, Options{})
			ref, d := blobRef(t, s.addr(), content)
			got, err := readRange(t.Context(), c.Open(ref, d), off, n)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v", err)
			}
			if err == nil && !bytes.Equal(got, content[off:off+n]) {
				t.Error("content differs")
			}
			for _, r := range s.requests() {
				if r.Header.Get("Accept-Encoding") != "identity" || r.Header.Get("User-Agent") != "peel" {
					t.Errorf("asked with %v", r.Header)
				}
			}
		})
	}
}

func encoded(how string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", how)
		serveBlob(w, r, content)
	}
}

// flushed makes an answer of unknown length.
type flushed struct{ http.ResponseWriter }

func (f *flushed) WriteHeader(code int) {
	f.Header().Del("Content-Length")
	f.ResponseWriter.WriteHeader(code)
	http.NewResponseController(f.ResponseWriter).Flush() //nolint:errcheck // the client tells
}

func parts(content []byte, list ...window) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		m := multipart.NewWriter(w)
		w.Header().Set("Content-Type", "multipart/byteranges; boundary="+m.Boundary())
		w.WriteHeader(http.StatusPartialContent)
		for _, p := range list {
			part, err := m.CreatePart(textproto.MIMEHeader{
				"Content-Type":  {"application/octet-stream"},
				"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", p.off, p.off+p.n-1, p.size)},
			})
			if err == nil {
				part.Write(content[p.off : p.off+p.n]) //nolint:errcheck // the client tells
			}
		}
		m.Close() //nolint:errcheck // the client tells
	}
}

func TestManifestCompressed(t *testing.T) {
	t.Parallel()
	s := newHost(t, encoded("gzip", []byte(imageManifest)))
	c := newClient(t, Options{})
	_, _, err := c.Manifest(t.Context(), named(t, s.addr()+"/a/b"))
	if !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), "Content-Encoding") || !strings.Contains(err.Error(), s.addr()) {
		t.Errorf("error %v", err)
	}
}

// Go's servers cannot send what this one does.
func TestTransferCompressed(t *testing.T) {
	t.Parallel()
	s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		rw.WriteString("HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n") //nolint:errcheck // the client tells
		rw.Flush()                                                                                          //nolint:errcheck // the client tells
	})
	c := newClient(t, Options{})
	ref, d := blobRef(t, s.addr(), noise(100))
	_, err := readRange(t.Context(), c.Open(ref, d), 5, 10)
	if !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), "transfer encoding") || len(s.requests()) != 1 {
		t.Errorf("%d requests, %v", len(s.requests()), err)
	}
}

// Words that are compressed are not shown.
func TestErrorCompressed(t *testing.T) {
	t.Parallel()
	s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, "\x1f\x8bxyz") //nolint:errcheck // the client tells
	})
	c := newClient(t, Options{})
	_, _, err := c.Manifest(t.Context(), named(t, s.addr()+"/a/b"))
	if !errors.Is(err, ErrDenied) || strings.Contains(err.Error(), "xyz") {
		t.Errorf("error %v", err)
	}
}

// A mirror that ignores Range is passed over once that is known, for near
// ranges, too; alone it serves them.
func TestMirrorIgnoresRange(t *testing.T) {
	t.Parallel()
	content := noise(3 << 20)
	mirror := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		serveBlob(w, r, content)
	})
	origin := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	c := newClient(t, Options{HostsDir: hostsDir(t, origin.addr(), fmt.Sprintf("server = %q\n[host.%q]\n", origin.URL, mirror.URL))})
	ref, d := blobRef(t, origin.addr(), content)
	b := c.Open(ref, d)
	for _, off := range []int64{2 << 20, 1000, 2<<20 + 500} {
		wantRange(t, b, content, off, 100)
	}
	got := [2]int{len(mirror.requests()), len(origin.requests())}
	if diff := cmp.Diff([2]int{1, 3}, got); diff != "" {
		t.Errorf("requests: %s", diff)
	}
	wantRange(t, b, content, 0, d.Size)
	if n := len(mirror.requests()); n != 2 {
		t.Error("the mirror is not asked for the whole blob, which it serves")
	}
	origin.Close()
	wantRange(t, b, content, 2000, 100)
}

func TestRedirectOverManyHosts(t *testing.T) {
	t.Parallel()
	content := noise(5000)
	next := newHost(t, func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) })
	last := next
	for range maxHops - 1 {
		to := next.URL
		next = newHost(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				t.Error("a credential for another host")
			}
			http.Redirect(w, r, to+"/x?sig=1", http.StatusFound)
		})
	}
	to := next.URL
	registry := newHost(t, challenge(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }))
	c := newClient(t, Options{Keychain: keys{registry.addr(): {Username: "user", Password: "pass"}}})
	ref, d := blobRef(t, registry.addr(), content)
	b := c.Open(ref, d)
	wantRange(t, b, content, 5, 100)
	wantRange(t, b, content, 500, 100)
	if r, l := len(registry.requests()), len(last.requests()); r != 2 || l != 2 {
		t.Errorf("%d and %d requests", r, l)
	}
}

// Some registries deny what comes with a token that has ended, instead of
// asking for another. Once is enough to know that it was not the token.
func TestForbiddenTokenRenewed(t *testing.T) {
	t.Parallel()
	r := newTokenRegistry(t)
	var deny atomic.Int64
	serve := r.registry.Config.Handler
	registry := newHost(t, func(w http.ResponseWriter, req *http.Request) {
		if isBlob(req) && deny.Add(-1) >= 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		serve.ServeHTTP(w, req)
	})
	c := newClient(t, Options{})
	ref, d := blobRef(t, registry.addr(), r.content)
	b := c.Open(ref, d)
	wantRange(t, b, r.content, 5, 100)
	deny.Store(1)
	wantRange(t, b, r.content, 5, 100)
	if n := r.issued.Load(); n != 2 {
		t.Errorf("%d tokens", n)
	}
	deny.Store(1000)
	if _, err := readRange(t.Context(), b, 5, 100); !errors.Is(err, ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	if n, left := r.issued.Load(), deny.Load(); n != 3 || left != 998 {
		t.Errorf("%d tokens, %d requests", n, 1000-left)
	}
}

// A manifest that changed on the way is asked for again; one that is wrong for
// good is not asked for without end.
func TestManifestSpoilt(t *testing.T) {
	t.Parallel()
	var bad atomic.Int64
	s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		if bad.Add(-1) >= 0 {
			w = spoilt{w}
		}
		io.WriteString(w, imageManifest) //nolint:errcheck // the client tells
	})
	c := newClient(t, Options{})
	ref := named(t, s.addr()+"/a/b@"+digest.FromString(imageManifest).String())
	bad.Store(2)
	if _, _, err := c.Manifest(t.Context(), ref); err != nil {
		t.Error(err)
	}
	bad.Store(1000)
	if _, _, err := c.Manifest(t.Context(), ref); !errors.Is(err, ErrVerify) {
		t.Errorf("error %v", err)
	}
	if n := 1000 - bad.Load(); n != int64(quick().Attempts) {
		t.Errorf("%d requests", n)
	}
}
