//go:build linux

package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func get(t *testing.T, url, rng string) (int, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			t.Log(err)
		}
	}()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func TestRegistryBehindProxy(t *testing.T) {
	t.Parallel()
	reg := NewRegistry(t)
	l := Encode(t, Gzip, Dir("etc"), File("etc/hosts", bytes.Repeat([]byte("0123456789abcdef"), 4096)))
	d := reg.Publish(t, "a/b", "v1", l)
	p := NewProxy(t, reg.Host())
	blob := "http://" + p.Host() + "/v2/a/b/blobs/" + l.Desc.Digest.String()

	status, body, err := get(t, "http://"+p.Host()+"/v2/a/b/manifests/v1", "")
	if err != nil || status != http.StatusOK || int64(len(body)) != d.Size {
		t.Fatalf("manifest: status %d, %d bytes, %v", status, len(body), err)
	}
	if status, body, err = get(t, blob, "bytes=10-29"); err != nil || status != http.StatusPartialContent || !bytes.Equal(body, l.Blob[10:30]) {
		t.Fatalf("range: status %d, %d bytes, %v", status, len(body), err)
	}
	if onDisk, err := os.ReadFile(reg.BlobFile(l.Desc)); err != nil || !bytes.Equal(onDisk, l.Blob) {
		t.Errorf("blob file: %v", err)
	}
	log := p.Log()
	if len(log) != 2 || !log[1].Blob() || log[1].Range != "bytes=10-29" || log[1].Bytes != 20 || log[1].Status != http.StatusPartialContent || Rounds(log) != 2 {
		t.Errorf("log: %+v", log)
	}

	spoilt := bytes.Clone(l.Blob)
	spoilt[12] ^= 1
	p.Inject(Fault{Path: "/blobs/", Times: 1, Do: Serve(spoilt, nil)})
	if _, body, err = get(t, blob, "bytes=10-19"); err != nil || !bytes.Equal(body, spoilt[10:20]) {
		t.Errorf("spoilt blob: %x, %v", body, err)
	}
	if _, body, err = get(t, blob, "bytes=10-19"); err != nil || !bytes.Equal(body, l.Blob[10:20]) {
		t.Errorf("blob after the fault: %x, %v", body, err)
	}
	p.Stop()
	if _, _, err = get(t, blob, ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stopped proxy: %v", err)
	}
	p.Start()
	if status, _, err = get(t, blob, ""); err != nil || status != http.StatusOK {
		t.Errorf("proxy started again: %d, %v", status, err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("x"), 100_000)
	origin := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	for _, tc := range []struct {
		name   string
		do     func(http.Handler) http.Handler
		status int
		length int
		err    error
	}{
		{"answer", Answer(http.StatusServiceUnavailable, http.Header{"Retry-After": {"1"}}), http.StatusServiceUnavailable, 0, nil},
		{"whole for a range", IgnoreRange, http.StatusOK, len(content), nil},
		{"cut", Cut(1000), http.StatusPartialContent, 1000, io.ErrUnexpectedEOF},
		{"reset", Reset(1000), http.StatusPartialContent, 1000, syscall.ECONNRESET},
		{"other content", Serve([]byte("0123456789"), nil), http.StatusPartialContent, 10, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := NewProxy(t, origin.Host())
			p.Inject(Fault{Do: tc.do})
			status, body, err := get(t, "http://"+p.Host()+"/blob", "bytes=0-49999")
			if status != tc.status || !errors.Is(err, tc.err) {
				t.Fatalf("status %d, %d bytes, error %v", status, len(body), err)
			}
			// A reset may overtake the bytes before it.
			if len(body) != tc.length && tc.name != "reset" {
				t.Errorf("%d bytes, want %d", len(body), tc.length)
			}
		})
	}
}

func TestStalls(t *testing.T) {
	t.Parallel()
	origin := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("z", 5000))
	}))
	p := NewProxy(t, origin.Host())
	release := make(chan struct{})
	stalled := p.Stalls("/", 1000, release)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Host()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Errorf("before the stall: %d bytes, %v", n, err)
	}
	for !stalled() {
		runtime.Gosched()
	}
	close(release)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 4000 {
		t.Errorf("after the stall: %d bytes, %v", len(rest), err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestRounds(t *testing.T) {
	t.Parallel()
	at := func(spans ...int) []Request {
		var log []Request
		for i := 0; i < len(spans); i += 2 {
			log = append(log, Request{Start: time.Unix(int64(spans[i]), 0), End: time.Unix(int64(spans[i+1]), 0)})
		}
		return log
	}
	for _, tc := range []struct {
		name string
		log  []Request
		want int
	}{
		{"none", nil, 0},
		{"one", at(0, 1), 1},
		{"one after the other", at(0, 1, 1, 2, 3, 4), 3},
		{"at once", at(0, 10, 1, 9, 2, 8), 1},
		{"a long one beside short ones", at(0, 10, 0, 1, 2, 3, 4, 5), 3},
		{"manifest, parallel indexes, data", at(0, 4, 5, 9, 5, 10, 6, 9, 11, 15), 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := Rounds(tc.log); got != tc.want {
				t.Errorf("%d rounds, want %d", got, tc.want)
			}
		})
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	const size, rate = 200_000, 1_000_000
	origin := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("y", size))
	}))
	p := NewProxy(t, origin.Host())
	p.SetLink(Link{Delay: 50 * time.Millisecond, BytesPerSecond: rate})
	start := time.Now()
	if _, body, err := get(t, "http://"+p.Host()+"/", ""); err != nil || len(body) != size {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	if took := time.Since(start); took < 240*time.Millisecond {
		t.Errorf("took %v, the link allows 250ms", took)
	}
	if log := p.Log(); len(log) != 1 || log[0].Bytes != size {
		t.Errorf("log: %+v", log)
	}
}
