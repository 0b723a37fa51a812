package remote

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

const imageManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`

func TestManifestAnswers(t *testing.T) {
	t.Parallel()
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
		{name: "tag", target: ":v1", header: map[string]string{"Content-Type": ocispec.MediaTypeImageIndex + "; charset=utf-8", "Docker-Content-Digest": right.String()}, digest: right, mediaType: ocispec.MediaTypeImageIndex},
		{name: "tag, no digest declared", target: ":v1", header: map[string]string{"Content-Type": dockerManifest}, digest: right, mediaType: dockerManifest},
		{name: "no tag", target: "", header: map[string]string{"Content-Type": dockerManifest}, digest: right, mediaType: dockerManifest},
		{name: "no type declared", target: ":v1", header: map[string]string{"Content-Type": "application/json"}, digest: right, mediaType: ocispec.MediaTypeImageManifest},
		{name: "sha512", target: "@" + sha512.String(), header: map[string]string{"Content-Type": dockerManifest}, digest: sha512, mediaType: dockerManifest},
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
			if got := s.requests()[0].Header.Get("Accept"); got != accept {
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
		}, errdefs.IsUnauthorized, []string{"docker login"}},
		{"401 without challenge", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, errdefs.IsUnauthorized, []string{"docker login"}},
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
	for _, tt := range []struct {
		name, host, hosts string
		requests          int64
		words             []string
	}{
		{"port closed", closed.Addr().String(), "", 4, []string{"connection refused", "4 attempts"}},
		{"plain HTTP", "localhost:" + port, `server = "https://localhost:` + port + `"`, 1, []string{"HTTP response to HTTPS client", "--plain-http"}},
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

func TestNewRefusesMissingHostsDir(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{HostsDir: t.TempDir() + "/none"}); !errors.Is(err, ErrUsage) {
		t.Errorf("error %v", err)
	}
}
