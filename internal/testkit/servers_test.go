//go:build linux

package testkit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// answer is what came of a request.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// ask is one request, no redirect followed.
func ask(t *testing.T, url string, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

func sampleLayer(t *testing.T) Layer {
	t.Helper()
	return Encode(t, Gzip, File("noise", Noise(1, 3*SliceSize)))
}

func TestOldRegistryConverts(t *testing.T) {
	t.Parallel()
	reg := NewOldRegistry(t)
	dir := t.TempDir()
	l, err := NewLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	layer := sampleLayer(t)
	d, err := l.DockerImage(layer)
	if err == nil {
		err = l.Tag("v1", d)
	}
	if err != nil {
		t.Fatal(err)
	}
	reg.Push(t, dir, "v1", "o/ld")
	for _, accept := range []string{Schema1Signed, Schema2} {
		got := ask(t, "http://"+reg.Host()+"/v2/o/ld/manifests/v1", http.Header{"Accept": {accept}})
		if kind := got.Header.Get("Content-Type"); kind != accept || !bytes.Contains(got.Body, []byte(layer.Desc.Digest)) {
			t.Errorf("asked for %s: %s\n%s", accept, kind, got.Body)
		}
	}
}

func TestNginxSlices(t *testing.T) {
	t.Parallel()
	reg := NewRegistry(t)
	layer := sampleLayer(t)
	reg.Publish(t, "a/b", "v1", layer)
	front := NewNginx(t, reg.Host())
	url := "http://" + front.Host() + "/v2/a/b/blobs/" + layer.Desc.Digest.String()
	for range 2 {
		got := ask(t, url, http.Header{"Range": {"bytes=262140-262150"}})
		if got.Status != http.StatusPartialContent || !bytes.Equal(got.Body, layer.Blob[262140:262151]) {
			t.Errorf("a range over two slices: %d, %d bytes, %v", got.Status, len(got.Body), got.Header)
		}
	}
	slices := 0
	for _, w := range reg.Wire() {
		if strings.HasPrefix(w.Header.Get("Range"), "bytes=") && w.Method == http.MethodGet {
			slices++
		}
	}
	if slices != 2 {
		t.Errorf("the registry was asked for %d slices, want 2", slices)
	}
}

func TestGuarded(t *testing.T) {
	t.Parallel()
	reg := NewRegistry(t)
	layer := sampleLayer(t)
	reg.Publish(t, "a/b", "v1", layer)
	g := NewGuarded(t, reg.Host(), Guard{TokenLife: time.Second, Users: map[string]string{"u": "p"}, URLLife: 2 * time.Second})
	blob := "http://" + g.Host() + "/v2/a/b/blobs/" + layer.Desc.Digest.String()
	got := ask(t, blob, nil)
	if got.Status != http.StatusUnauthorized || !strings.Contains(got.Header.Get("Www-Authenticate"), "repository:a/b:pull") {
		t.Fatalf("without a token: %d, %v", got.Status, got.Header)
	}
	token := "http://" + g.Tokens.Host() + "/token?service=x&scope=repository:a/b:pull"
	if got = ask(t, token, nil); got.Status != http.StatusUnauthorized {
		t.Errorf("a token for nobody: %d", got.Status)
	}
	got = ask(t, token, http.Header{"Authorization": {"Basic dTpw"}})
	var given struct{ Token string }
	if err := json.Unmarshal(got.Body, &given); err != nil || given.Token == "" {
		t.Fatalf("%s: %v", got.Body, err)
	}
	bearer := http.Header{"Authorization": {"Bearer " + given.Token}}
	signed := ask(t, ask(t, blob, bearer).Header.Get("Location"), nil).Header.Get("Location")
	if got = ask(t, signed, http.Header{"Range": {"bytes=5-9"}}); !bytes.Equal(got.Body, layer.Blob[5:10]) {
		t.Errorf("the signed URL: %d, %q", got.Status, got.Body)
	}
	if got = ask(t, signed+"0", nil); got.Status != http.StatusForbidden {
		t.Errorf("another signature: %d", got.Status)
	}
	expired := func() bool {
		return ask(t, signed, nil).Status == http.StatusForbidden && ask(t, blob, bearer).Status == http.StatusUnauthorized
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !expired() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("neither the token nor the URL expires")
		}
	}
	if !Carried(g.Wire(), given.Token) || Carried(g.Blobs.Wire(), given.Token) {
		t.Error("the wire does not show who was sent the token")
	}
}

func TestStorm(t *testing.T) {
	t.Parallel()
	reg := NewRegistry(t)
	layer := sampleLayer(t)
	reg.Publish(t, "a/b", "v1", layer)
	p := NewProxy(t, reg.Host())
	everything := Everything(7, 0.12)
	everything.Stalled = 0
	w := p.Storm(everything)
	bad := map[string]int{}
	for range 200 {
		status, body, err := get(t, "http://"+p.Host()+"/v2/a/b/blobs/"+layer.Desc.Digest.String(), "")
		switch {
		case status >= 400:
			bad[http.StatusText(status)]++
		case err != nil:
			bad["broken"]++
		case !bytes.Equal(body, layer.Blob):
			bad["wrong"]++
		}
	}
	for name, n := range bad {
		if n < 8 || n > 80 {
			t.Errorf("%s: %d of 200", name, n)
		}
	}
	if len(bad) != 5 {
		t.Errorf("only %v; %s", bad, w)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	reg := NewRegistry(t)
	reg.Publish(t, "a/b", "v1", sampleLayer(t))
	a := NewAuthority(t)
	front := a.Front(t, reg.Host(), a, "127.0.0.1")
	cert, key := a.Client(t, "somebody")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := os.ReadFile(a.File)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	config.RootCAs = poolOf(t, roots)
	tr := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+front.Host()+"/v2/a/b/manifests/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	config.Certificates = nil
	if resp, err := (&http.Transport{TLSClientConfig: config.Clone(), DisableKeepAlives: true}).RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Error("without a certificate the client was let in")
	}
}

func poolOf(t *testing.T, roots []byte) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		t.Fatal("no certificate")
	}
	return pool
}
