package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

const imageManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`

func TestManifestAnswers(t *testing.T) {
	t.Parallel()
	const untyped = `{"schemaVersion":2}`
	right, other := digest.FromString(imageManifest), digest.FromString("other")
	sha512 := digest.SHA512.FromString(imageManifest)
	for _, tt := range []struct {
		name, target string
		header       map[string]string
		body         string
		digest       digest.Digest
		mediaType    string
		err          error
	}{
		{name: "tag", target: ":v1", header: map[string]string{"Content-Type": ocispec.MediaTypeImageManifest + "; charset=utf-8", "Docker-Content-Digest": right.String()}, digest: right, mediaType: ocispec.MediaTypeImageManifest},
		{name: "tag, no digest declared", target: ":v1", header: map[string]string{"Content-Type": dockerManifest}, body: untyped, digest: digest.FromString(untyped), mediaType: dockerManifest},
		{name: "no tag", target: "", header: map[string]string{"Content-Type": dockerIndex}, body: untyped, digest: digest.FromString(untyped), mediaType: dockerIndex},
		{name: "no type declared", target: ":v1", header: map[string]string{"Content-Type": "application/json"}, digest: right, mediaType: ocispec.MediaTypeImageManifest},
		{name: "another type declared", target: ":v1", header: map[string]string{"Content-Type": dockerManifest}, err: ErrAnswer},
		{name: "sha512", target: "@" + sha512.String(), header: map[string]string{"Content-Type": ocispec.MediaTypeImageManifest}, digest: sha512, mediaType: ocispec.MediaTypeImageManifest},
		{name: "tag, other digest declared", target: ":v1", header: map[string]string{"Docker-Content-Digest": other.String()}, err: ErrVerify},
		{name: "malformed digest declared", target: ":v1", header: map[string]string{"Docker-Content-Digest": "sha256:1"}, err: ErrVerify},
		{name: "digest, other content", target: "@" + other.String(), err: ErrVerify},
		{name: "digest, other content, declared right", target: "@" + other.String(), header: map[string]string{"Docker-Content-Digest": other.String()}, err: ErrVerify},
		{name: "too long", target: ":v1", body: strings.Repeat("x", maxDocument+1), err: ErrAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body := tt.body
			if body == "" {
				body = imageManifest
			}
			s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range tt.header {
					w.Header().Set(k, v)
				}
				w.Write([]byte(body)) //nolint:errcheck // the client tells
			})
			c := newClient(t, Options{})
			desc, raw, err := c.Manifest(t.Context(), named(t, s.addr()+"/a/b"+tt.target))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			want := ocispec.Descriptor{MediaType: tt.mediaType, Digest: tt.digest, Size: int64(len(body))}
			if desc.Digest != want.Digest || desc.MediaType != want.MediaType || desc.Size != want.Size || !bytes.Equal(raw, []byte(body)) {
				t.Errorf("%+v", desc)
			}
			if got := s.requests()[0].Header.Get("Accept"); got != acceptNew+", "+acceptOld {
				t.Errorf("Accept %q", got)
			}
		})
	}
}

func TestManifestErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		class func(error) bool
		words []string
	}{
		{"unknown", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, errdefs.IsNotFound, []string{"not found on", "check the name and the tag"}},
		{"unknown or private", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
		}, errdefs.IsUnauthorized, []string{"peel login"}},
		{"401 without challenge", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, errdefs.IsUnauthorized, []string{"peel login"}},
		{"denied", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			w.Write([]byte(`{"errors":[{"code":"DENIED","message":"no\u001b[2Jway"}]}`)) //nolint:errcheck // the client tells
		}, errdefs.IsPermissionDenied, []string{`"DENIED: no\x1b[2Jway"`}},
		{"rate limit", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
		}, errdefs.IsUnavailable, []string{"429", "1h0m0s"}},
		{"down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, errdefs.IsUnavailable, []string{"503", "4 attempts"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, tt.serve)
			_, _, err := newClient(t, Options{}).Manifest(t.Context(), named(t, s.addr()+"/a/b:v1"))
			if err == nil || !tt.class(err) {
				t.Fatalf("error %v", err)
			}
			for _, w := range append(tt.words, s.addr()+"/a/b:v1: ") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q not in: %v", w, err)
				}
			}
		})
	}
}

func TestManifestConnectionErrors(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	plain := newHost(t, func(http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(plain.addr())
	secure := newUnstartedHost(t, func(http.ResponseWriter, *http.Request) {})
	secure.StartTLS()
	_, securePort, _ := net.SplitHostPort(secure.addr())
	expired := newExpiredHost(t)
	for _, tt := range []struct {
		name, host, hosts string
		requests          int64
		words             []string
	}{
		{"port closed", closed.Addr().String(), "", 4, []string{"connection refused", "4 attempts", "and the network, with: peel doctor " + closed.Addr().String()}},
		{"plain HTTP", "localhost:" + port, `server = "https://localhost:` + port + `"`, 1, []string{"HTTP response to HTTPS client", "--plain-http"}},
		{"name that the certificate has not", "localhost:" + securePort, trusting(t, "localhost:"+securePort, secure), 1, []string{"certificate is valid for", "; use a name or address that the registry's certificate has"}},
		{"certificate expired", expired.addr(), trusting(t, expired.addr(), expired), 1, []string{"expired", "; check this machine's clock"}},
		{"unknown CA", secure.addr(), `server = "https://` + secure.addr() + `"`, 1, []string{"certificate signed by unknown authority", "hosts.toml"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{HostsDir: hostsDir(t, tt.host, tt.hosts)})
			_, _, err := c.Manifest(t.Context(), named(t, tt.host+"/a/b:v1"))
			if !errdefs.IsUnavailable(err) {
				t.Fatalf("error %v", err)
			}
			for _, w := range append(tt.words, tt.host) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q not in: %v", w, err)
				}
			}
			if s := c.Stats(); s.Requests != tt.requests || s.LastErrorHost != tt.host {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		ok     bool
	}{{200, true}, {401, true}, {404, false}, {503, false}} {
		s := newHost(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				t.Errorf("asked for %s", r.URL)
			}
			w.WriteHeader(tt.status)
		})
		if err := newClient(t, Options{}).Ping(t.Context(), s.addr()); (err == nil) != tt.ok {
			t.Errorf("%d: %v", tt.status, err)
		}
		if n := len(s.requests()); n != 1 {
			t.Errorf("%d: %d requests", tt.status, n)
		}
	}
}

func TestWarningsOnce(t *testing.T) {
	t.Parallel()
	s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Warning", `299 - "going away"`)
		w.Write([]byte(imageManifest)) //nolint:errcheck // the client tells
	})
	logger, hook := logrustest.NewNullLogger()
	c := newClient(t, Options{Log: logrus.NewEntry(logger)})
	for range 3 {
		if _, _, err := c.Manifest(t.Context(), named(t, s.addr()+"/a/b:v1")); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(hook.AllEntries()); n != 1 || !strings.Contains(hook.LastEntry().Message, "going away") {
		t.Errorf("%d log lines", n)
	}
}

// trusting is a hosts.toml that names the certificate of s as CA of registry.
func trusting(t *testing.T, registry string, s *host) string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("server = %q\nca = %q\n", "https://"+registry, ca)
}

// newExpiredHost has a certificate of its own that ended an hour ago.
func newExpiredHost(t *testing.T) *host {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-2 * time.Hour),
		NotAfter:              time.Now().Add(-time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := newUnstartedHost(t, func(http.ResponseWriter, *http.Request) {})
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}
	s.StartTLS()
	return s
}

// Ports that cannot be are the user's mistake: nobody is asked, let alone twice.
func TestPortOutOfRange(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"0", "65536", "99999", "99999999999999999999"} {
		c := newClient(t, Options{})
		_, _, err := c.Manifest(t.Context(), named(t, "localhost:"+port+"/a:v1"))
		if !errors.Is(err, ErrUsage) || errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "port "+port+", want 1 to 65535") {
			t.Errorf("port %s: error %v", port, err)
		}
		if s := c.Stats(); s.Requests != 0 || s.Retries != 0 {
			t.Errorf("port %s: %+v", port, s)
		}
	}
}

// Only failures of the network itself get the remedy, and only one each.
func TestAdvise(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"connection", transportFault("h", dial), true},
		{"no such host", transportFault("h", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}), false},
		{"silence", transportFault("h", errStalled), true},
		{"body ends early", transportFault("h", io.ErrUnexpectedEOF), false},
		{"other remedy", &fault{class: ErrUnreachable, cause: dial, remedy: "do this"}, false},
		{"answer", &fault{class: ErrUnreachable, text: "h answers 503"}, false},
		{"foreign error", context.Canceled, false},
	} {
		got := advise("h.example", tt.err)
		if has := strings.Contains(got.Error(), "peel doctor h.example"); has != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if !tt.want && got != tt.err { //nolint:errorlint // the very same
			t.Errorf("%s: changed to %v", tt.name, got)
		}
	}
}

func TestNewRefusesHostsDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, dir, want string }{
		{"missing", filepath.Join(dir, "none"), "hosts folder " + filepath.Join(dir, "none") + ": no such file or directory; --hosts-dir takes"},
		{"file", file, "hosts folder " + file + " is not a folder; --hosts-dir takes"},
	} {
		_, err := New(Options{HostsDir: tt.dir})
		if !errors.Is(err, ErrUsage) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
}
