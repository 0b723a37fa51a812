package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// strike is what befalls the n-th request of a method, and how.
type strike struct {
	method string
	n      int64
	how    func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

func answering(code int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(code) }
}

// die breaks both connections after n bytes of the request's body.
func die(n int64) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, n), brokenReader{io.ErrUnexpectedEOF}))
		next.ServeHTTP(discard{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
}

// lose has the request done, and its answer lost.
func lose(_ http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(discard{http.Header{}}, r)
	panic(http.ErrAbortHandler)
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// frail is a host before distribution's registry that strikes.
func frail(t *testing.T, strikes ...strike) *host {
	t.Helper()
	upstream, err := url.Parse(distribution(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	next := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host
		},
		Transport:    transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	var mu sync.Mutex
	seen := map[string]int64{}
	return newHost(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Method]++
		n := seen[r.Method]
		mu.Unlock()
		for _, s := range strikes {
			if s.method == r.Method && s.n == n {
				s.how(w, r, next)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// upload sends content in chunks of size, in uneven writes.
func upload(ctx context.Context, r *Repository, content []byte, size int) error {
	u, err := r.Create(ctx)
	if err != nil {
		return err
	}
	defer u.Close()
	u.size = size
	for w := content; len(w) > 0; {
		n, err := u.Write(w[:min(len(w), 7777)])
		if err != nil {
			return err
		}
		w = w[n:]
	}
	return u.Commit(ctx, digest.FromBytes(content))
}

func TestUploadSurvives(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	content := noise(size*5/2 + 1)
	for _, tt := range []struct {
		name    string
		strikes []strike
		// Bytes sent beyond the content's, at most; the rest of a chunk that
		// arrived in part is not sent from its start.
		extra int64
	}{
		{"nothing", nil, 0},
		{"refused at first", []strike{{"POST", 1, answering(429)}, {"POST", 2, answering(500)}}, 0},
		{"chunk refused", []strike{{"PATCH", 2, answering(502)}, {"PATCH", 3, answering(503)}}, 2 * size},
		{"first chunk dies", []strike{{"PATCH", 1, die(size / 2)}}, size},
		{"chunk dies again and again", []strike{{"PATCH", 2, die(size / 2)}, {"PATCH", 3, die(size / 4)}, {"PATCH", 4, die(0)}}, 2 * size},
		{"chunk done, answer lost", []strike{{"PATCH", 2, lose}}, 0},
		{"last chunk done, answer lost", []strike{{"PATCH", 3, lose}}, 0},
		{"state not told at first", []strike{{"PATCH", 2, die(size / 2)}, {"GET", 1, answering(503)}}, size},
		{"end refused", []strike{{"PUT", 1, answering(503)}}, 0},
		{"ended, answer lost", []strike{{"PUT", 1, lose}, {"HEAD", 1, answering(503)}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := frail(t, tt.strikes...)
			retry := quick()
			retry.Attempts = 5
			c := newClient(t, Options{Retry: retry})
			r := c.Repository(named(t, s.addr()+"/a/b"))
			err := upload(t.Context(), r, content, size)
			if err != nil {
				t.Fatal(err)
			}
			wantRange(t, c.Open(r.name, describing("", content)), content, 0, int64(len(content)))
			// The transport may have taken a buffer more than it could send.
			const buffer = 32 << 10
			if extra := c.Stats().BytesSent - int64(len(content)); extra < 0 || extra > tt.extra+buffer {
				t.Errorf("%d bytes sent in vain, want at most %d", extra, tt.extra)
			}
			if (c.Stats().Retries > 0) != (len(tt.strikes) > 0) {
				t.Errorf("%d retries", c.Stats().Retries)
			}
		})
	}
}

// What a single request sends is begun afresh.
func TestPushBlobSurvives(t *testing.T) {
	t.Parallel()
	content := noise(3 << 20)
	for _, tt := range []struct {
		name    string
		strikes []strike
		puts    int
	}{
		{"refused", []strike{{"PUT", 1, answering(503)}}, 2},
		{"dies", []strike{{"PUT", 1, die(1 << 20)}, {"PUT", 2, die(1000)}}, 3},
		{"session gone", []strike{{"PUT", 1, answering(404)}}, 2},
		{"done, answer lost", []strike{{"PUT", 1, lose}}, 1},
	} {
		for _, whole := range []bool{true, false} {
			t.Run(tt.name+map[bool]string{true: ", blob", false: ", upload"}[whole], func(t *testing.T) {
				t.Parallel()
				s := frail(t, tt.strikes...)
				c := newClient(t, Options{})
				r := c.Repository(named(t, s.addr()+"/a/b"))
				opened, d := 0, describing("", content)
				var err error
				if whole {
					err = c.PushBlob(t.Context(), r.name, d, func() (io.ReadCloser, error) {
						opened++
						return opener(content)()
					})
				} else {
					err = upload(t.Context(), r, content, len(content))
				}
				if err != nil {
					t.Fatal(err)
				}
				wantRange(t, c.Open(r.name, d), content, 0, d.Size)
				puts := 0
				for _, r := range s.requests() {
					if r.Method == http.MethodPut {
						puts++
					}
				}
				if puts != tt.puts || whole && opened != puts {
					t.Errorf("%d times put, %d times opened", puts, opened)
				}
			})
		}
	}
}

// An upload that never arrives ends in an error, however much of it was sent.
func TestUploadGivenUp(t *testing.T) {
	t.Parallel()
	content := noise(3 << 20)
	for _, tt := range []struct {
		name       string
		put, patch func(http.ResponseWriter, *http.Request, http.Handler)
		err        error
	}{
		// A chunk that gets anywhere is progress; a blob that is begun afresh is not.
		{"dies", die(1 << 20), die(0), ErrUnreachable},
		{"refused", answering(400), answering(400), ErrAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var strikes []strike
			for n := range int64(50) {
				strikes = append(strikes, strike{"PUT", n, tt.put}, strike{"PATCH", n, tt.patch})
			}
			c := newClient(t, Options{})
			r := c.Repository(named(t, frail(t, strikes...).addr()+"/a/b"))
			if err := c.PushBlob(t.Context(), r.name, describing("", content), opener(content)); !errors.Is(err, tt.err) {
				t.Errorf("blob: %v", err)
			}
			for _, size := range []int{len(content), 2 << 20} {
				if err := upload(t.Context(), r, content, size); !errors.Is(err, tt.err) {
					t.Errorf("upload in chunks of %d bytes: %v", size, err)
				}
			}
		})
	}
}

// A host that stops reading is found out; a slow source is not held against it.
func TestPushStalls(t *testing.T) {
	t.Parallel()
	content := noise(32 << 20) // more than sockets buffer
	release := make(chan struct{})
	var slow atomic.Bool
	s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodPost:
			w.Header().Set("Location", "/up")
			w.WriteHeader(http.StatusAccepted)
		case slow.Load():
			io.Copy(io.Discard, r.Body) //nolint:errcheck // the client tells
		default:
			<-release
		}
	})
	defer close(release)
	retry := quick()
	retry.Progress, retry.Attempts = 200*time.Millisecond, 2
	c := newClient(t, Options{Retry: retry})
	ref := named(t, s.addr()+"/a/b")
	err := c.PushBlob(t.Context(), ref, describing("", content), opener(content))
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), errStalled.Error()) {
		t.Errorf("stalled: %v", err)
	}
	slow.Store(true)
	err = c.PushBlob(t.Context(), ref, describing("", content[:10]), func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[:5]), &late{time.After(3 * retry.Progress), content[5:10]})), nil
	})
	if err != nil {
		t.Errorf("slow source: %v", err)
	}
}

// late yields its bytes after a while.
type late struct {
	when <-chan time.Time
	rest []byte
}

func (l *late) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		return 0, io.EOF
	}
	<-l.when
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func TestReceived(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want int64
		ok   bool
	}{
		{"0-9", 10, true},
		{"bytes=0-9", 10, true},
		{"0-0", 1, true},
		{"", 0, false},
		{"9", 0, false},
		{"1-9", 0, false},
		{"0--9", 0, false},
		{"0-99999999999999999999", 0, false},
	} {
		if got, ok := received(http.Header{"Range": {tt.text}}); got != tt.want || ok != tt.ok {
			t.Errorf("%q: %d, %v", tt.text, got, ok)
		}
	}
}

func TestLeastChunk(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"": 0, "5242880": 5 << 20, "-1": -1, "x": -1, "1000000000000": -1} {
		got, err := leastChunk(&answer{Response: &http.Response{Header: http.Header{"Oci-Chunk-Min-Length": {text}}}, url: mustURL(t, "https://r.example")})
		if err != nil {
			got = -1
		}
		if got != want || (want < 0) != errors.Is(err, ErrAnswer) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// Two writers who both read the referrers tag before either wrote it.
func TestReferrersTagOfTwoWriters(t *testing.T) {
	t.Parallel()
	var waiting sync.WaitGroup
	waiting.Add(2)
	together := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		waiting.Done()
		waiting.Wait()
		next.ServeHTTP(w, r)
	}
	s := frail(t, strike{"GET", 1, together}, strike{"GET", 2, together})
	subject := describing(ocispec.MediaTypeImageManifest, []byte("any"))
	var wg sync.WaitGroup
	want := make([]ocispec.Descriptor, 2)
	ref := named(t, s.addr()+"/a/b")
	for i, note := range []string{"one", "two"} {
		wg.Go(func() { want[i] = pushReferrer(t, newClient(t, Options{}).Repository(ref), subject, note) })
	}
	wg.Wait()
	got, err := newClient(t, Options{}).Referrers(t.Context(), ref, subject.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 2 && got[0].Digest != want[0].Digest {
		got[0], got[1] = got[1], got[0]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A registry that lists referrers itself says so, and gets no tag.
func TestReferrersTagNotNeeded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, confirm string
		tag           func(w http.ResponseWriter, r *http.Request)
		puts          int
		err           error
	}{
		{"confirmed", digest.FromString("any").String(), nil, 1, nil},
		{"listed already", "", func(w http.ResponseWriter, _ *http.Request) {
			_, want := referrer(t, describing("", []byte("any")), "x")
			io.WriteString(w, asJSON(t, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{want}})) //nolint:errcheck // the client tells
		}, 1, nil},
		{"tag is an image", "", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, imageManifest) //nolint:errcheck // the client tells
		}, 1, ErrAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			puts := atomic.Int64{}
			s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					tt.tag(w, r)
					return
				}
				puts.Add(1)
				if tt.confirm != "" {
					w.Header().Set("OCI-Subject", tt.confirm)
				}
				w.WriteHeader(http.StatusCreated)
			})
			raw, _ := referrer(t, describing("", []byte("any")), "x")
			_, err := newClient(t, Options{}).Repository(named(t, s.addr()+"/a/b")).PutManifest(t.Context(), raw, ocispec.MediaTypeImageManifest, "")
			if !errors.Is(err, tt.err) || puts.Load() != int64(tt.puts) {
				t.Errorf("%d puts, error %v", puts.Load(), err)
			}
		})
	}
}
