package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clientPair writes a certificate with its key, into one file or into two, and
// returns what servers have to trust.
func clientPair(t *testing.T) (cert, key, both string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	dir := t.TempDir()
	cert, key, both = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"), filepath.Join(dir, "both.pem")
	for name, content := range map[string][]byte{cert: certPEM, key: keyPEM, both: append(certPEM, keyPEM...)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, key, both, pool
}

func TestTLSOptions(t *testing.T) {
	t.Parallel()
	cert, key, both, pool := clientPair(t)
	for _, tt := range []struct {
		name    string
		mutual  bool // the registry wants a certificate
		toml    string
		o       func(*Options, *host)
		problem string
	}{
		{"nothing", false, "", func(*Options, *host) {}, "unknown authority"},
		{"CA", false, "", func(o *Options, s *host) { o.CAs = []string{caFile(t, s)} }, ""},
		{"CA beside another of hosts.toml", false, "ca = \"" + cert + "\"\n", func(o *Options, s *host) { o.CAs = []string{cert, caFile(t, s)} }, ""},
		{"no verification", false, "", func(o *Options, _ *host) { o.InsecureSkipVerify = true }, ""},
		{"no verification, which hosts.toml wants", false, "skip_verify = false\n", func(o *Options, _ *host) { o.InsecureSkipVerify = true }, "unknown authority"},
		{"client certificate missing", true, "", func(o *Options, s *host) { o.CAs = []string{caFile(t, s)} }, "--client-cert"},
		{"client certificate", true, "", func(o *Options, s *host) { o.CAs, o.ClientCert, o.ClientKey = []string{caFile(t, s)}, cert, key }, ""},
		{"client certificate with its key", true, "", func(o *Options, s *host) { o.CAs, o.ClientCert = []string{caFile(t, s)}, both }, ""},
		{"hosts.toml's client certificate", true, "client = \"" + both + "\"\n", func(o *Options, s *host) { o.CAs = []string{caFile(t, s)} }, ""},
		{"hosts.toml's client pair", true, fmt.Sprintf("client = [[%q, %q]]\n", cert, key), func(o *Options, s *host) { o.CAs = []string{caFile(t, s)} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newUnstartedHost(t, saying(200, nil, imageManifest))
			s.EnableHTTP2 = true
			if tt.mutual {
				s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
			}
			s.StartTLS()
			o := Options{HostsDir: hostsDir(t, s.addr(), "server = \""+s.URL+"\"\n"+tt.toml)}
			tt.o(&o, s)
			_, _, err := newClient(t, o).Manifest(t.Context(), named(t, s.addr()+"/a/b:v1"))
			if (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Whoever speaks of certificates means TLS, on this machine, too.
func TestTLSOptionsMeanTLS(t *testing.T) {
	t.Parallel()
	cert, key, _, _ := clientPair(t)
	for _, tt := range []struct {
		name    string
		plain   bool // the registry has no TLS
		o       func(*Options, *host)
		problem string
	}{
		{"nothing", true, func(*Options, *host) {}, ""},
		{"CA", false, func(o *Options, s *host) { o.CAs = []string{caFile(t, s)} }, ""},
		{"another CA", false, func(o *Options, _ *host) { o.CAs = []string{cert} }, "unknown authority"},
		{"no verification", false, func(o *Options, _ *host) { o.InsecureSkipVerify = true }, ""},
		{"no verification, plain registry", true, func(o *Options, _ *host) { o.InsecureSkipVerify = true }, "--plain-http"},
		{"no verification, plain HTTP", true, func(o *Options, _ *host) { o.InsecureSkipVerify, o.PlainHTTP = true, true }, ""},
		{"client certificate", false, func(o *Options, s *host) { o.CAs, o.ClientCert, o.ClientKey = []string{caFile(t, s)}, cert, key }, ""},
		{"client certificate alone", false, func(o *Options, _ *host) { o.ClientCert, o.ClientKey = cert, key }, "unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newUnstartedHost(t, saying(200, nil, imageManifest))
			if tt.plain {
				s.Start()
			} else {
				s.StartTLS()
			}
			var o Options
			tt.o(&o, s)
			_, _, err := newClient(t, o).Manifest(t.Context(), named(t, s.addr()+"/a/b:v1"))
			if (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// What the options say of the registry is not for its mirrors.
func TestTLSOptionsNotForMirrors(t *testing.T) {
	t.Parallel()
	mirror, origin := newUnstartedHost(t, saying(200, nil, imageManifest)), newHost(t, saying(200, nil, imageManifest))
	mirror.StartTLS()
	c := newClient(t, Options{
		InsecureSkipVerify: true, CAs: []string{caFile(t, mirror)},
		HostsDir: hostsDir(t, origin.addr(), fmt.Sprintf("server = %q\n[host.%q]\n", origin.URL, mirror.URL)),
	})
	if _, _, err := c.Manifest(t.Context(), named(t, origin.addr()+"/a/b:v1")); err != nil {
		t.Fatal(err)
	}
	if n := len(mirror.requests()); n != 0 {
		t.Errorf("%d requests at the mirror", n)
	}
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		o     Options
		words string
	}{
		{"no such CA", Options{CAs: []string{"/no/ca"}}, "/no/ca"},
		{"CA without a certificate", Options{CAs: []string{empty}}, "no certificate in PEM"},
		{"no such client certificate", Options{ClientCert: "/no/cert"}, "--client-cert"},
		{"key alone", Options{ClientKey: empty}, "--client-cert is missing"},
		{"schema", Options{Schema: 3}, "neither 1 nor 2"},
	} {
		if _, err := New(tt.o); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A host that may be asked over plain HTTP, too, does not make others answer so.
func TestFallbackIsForOneHost(t *testing.T) {
	t.Parallel()
	realm := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"token":"x"}`)) //nolint:errcheck // the client tells
	})
	registry := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+realm.addr()+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	c := newClient(t, Options{
		HostsDir: hostsDir(t, registry.addr(), "server = \""+registry.URL+"\"\nskip_verify = true\n"),
		Keychain: keys{registry.addr(): {Username: "u", Password: "p"}},
	})
	if _, _, err := c.Manifest(t.Context(), named(t, registry.addr()+"/a/b:v1")); err == nil {
		t.Error("a token came over plain HTTP")
	}
	if n, asked := len(realm.requests()), len(registry.requests()); n != 0 || asked == 0 {
		t.Errorf("%d requests over plain HTTP to the token server, %d to the registry", n, asked)
	}
}
