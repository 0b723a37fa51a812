package remote

import (
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
)

// saying serves one answer to everything.
func saying(status int, header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		w.Write([]byte(body)) //nolint:errcheck // the client tells
	}
}

// refusing is a port where nothing listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// What users meet: what happened, where, and what to do.
func TestErrorsTell(t *testing.T) {
	t.Parallel()
	basic := map[string]string{"WWW-Authenticate": `Basic realm="r"`}
	plain := newHost(t, saying(200, nil, ""))
	secure := newUnstartedHost(t, saying(200, nil, ""))
	secure.StartTLS()
	_, securePort, _ := net.SplitHostPort(secure.addr())
	expired := newExpiredHost(t)
	silent := newHost(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	proxy407 := newHost(t, saying(407, nil, ""))
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc // of the registry, if it is not named
		host  string
		hosts string // hosts.toml; HOST is the registry
		o     Options
		class func(error) bool
		words []string
	}{
		{name: "login missing", serve: saying(401, basic, ""), class: errdefs.IsUnauthorized, words: []string{"HOST wants a login", "peel login HOST"}},
		{name: "login of an unknown kind", serve: saying(401, map[string]string{"WWW-Authenticate": "Digest x"}, ""), class: errdefs.IsUnauthorized, words: []string{"HOST", "login"}},
		{name: "login refused", serve: saying(401, basic, ""), o: Options{Credentials: &Credentials{Username: "u", Password: "hunter2"}}, class: errdefs.IsUnauthorized, words: []string{"HOST does not take the name or the password of \"u\"", "peel login HOST"}},
		{name: "login refused by the token server", serve: tokenless, o: Options{Credentials: &Credentials{Username: "u", Password: "hunter2"}}, class: errdefs.IsUnauthorized, words: []string{"HOST, which gives the tokens for HOST, does not take the name or the password of \"u\"", "peel login HOST"}},
		{name: "identity token refused", serve: tokenless, o: Options{Keychain: everywhere{IdentityToken: "hunter2"}}, class: errdefs.IsUnauthorized, words: []string{"does not take the identity token", "peel login HOST"}},
		{name: "no token for nobody", serve: tokenless, class: errdefs.IsUnauthorized, words: []string{"HOST gives no token for HOST", "peel login HOST"}},
		{name: "redirects without end", serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"?sig=hunter2", http.StatusFound)
		}, class: errdefs.IsUnknown, words: []string{"HOST redirects without end", "look where it leads: http://HOST/v2/a/b/manifests/v1;", "hosts.toml"}},
		{name: "schema 1 where there is none", serve: saying(404, nil, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`), o: Options{Schema: 1}, class: errdefs.IsNotFound, words: []string{"v1 not found on HOST", "no manifest of Docker schema 1", "leave out --schema 1"}},
		{name: "schema 2 where there is none", serve: saying(404, nil, ""), o: Options{Schema: 2}, class: errdefs.IsNotFound, words: []string{"v1 not found on HOST", "leave out --schema 2"}},
		{name: "captive portal", serve: saying(200, map[string]string{"Content-Type": "Text/HTML; charset=utf-8"}, "<html>Pay</html>"), class: errdefs.IsUnknown, words: []string{"HOST sends a web page (text/html), not a manifest", "captive portal"}},
		{name: "manifest that is no JSON", serve: saying(200, nil, "hello"), class: errdefs.IsUnknown, words: []string{"HOST sends", "no JSON object"}},
		{name: "manifest that is no object", serve: saying(200, map[string]string{"Content-Type": dockerManifest}, "null"), class: errdefs.IsUnknown, words: []string{"HOST sends", "no JSON object"}},
		{name: "denied", serve: saying(403, nil, `{"errors":[{"code":"DENIED","message":"no way"}]}`), class: errdefs.IsPermissionDenied, words: []string{"HOST denies access", "no way", "peel login HOST"}},
		{name: "tag not found", serve: saying(404, nil, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`), class: errdefs.IsNotFound, words: []string{"tag v1 not found on HOST", "peel tags HOST/a/b"}},
		{name: "repository not found", serve: saying(404, nil, `{"errors":[{"code":"NAME_UNKNOWN"}]}`), class: errdefs.IsNotFound, words: []string{"no repository a/b on HOST", "check the name"}},
		{name: "rate limit", serve: saying(429, map[string]string{"Retry-After": "3600"}, ""), class: errdefs.IsUnavailable, words: []string{"HOST limits how often", "1h0m0s", "peel login HOST"}},
		{name: "name that the certificate has not", host: "localhost:" + securePort, hosts: trusting(t, "localhost:"+securePort, secure), class: errdefs.IsUnavailable, words: []string{"certificate is valid for", "use a name"}},
		{name: "unknown CA", host: secure.addr(), hosts: `server = "https://HOST"`, class: errdefs.IsUnavailable, words: []string{"unknown authority", "--ca FILE", "hosts.toml"}},
		{name: "certificate expired", host: expired.addr(), hosts: trusting(t, expired.addr(), expired), class: errdefs.IsUnavailable, words: []string{"expired", "clock"}},
		{name: "HTTP where HTTPS is expected", host: plain.addr(), hosts: `server = "https://HOST"`, class: errdefs.IsUnavailable, words: []string{"HTTP response to HTTPS client", "--plain-http"}},
		{name: "HTTPS where HTTP is expected", host: secure.addr(), class: errdefs.IsUnavailable, words: []string{"HTTPS", "leave out --plain-http"}},
		{name: "no such host", host: "registry.invalid", hosts: `server = "http://HOST"`, class: errdefs.IsUnavailable, words: []string{"registry.invalid", "spelled"}},
		{name: "refused", host: refusing(t), class: errdefs.IsUnavailable, words: []string{"connection refused", "peel doctor HOST"}},
		{name: "time-out", host: silent.addr(), o: Options{Timeout: 50 * time.Millisecond}, class: errdefs.IsUnavailable, words: []string{"HOST: no bytes arrived", "--timeout"}},
		{name: "proxy refuses a tunnel", host: secure.addr(), hosts: "server = \"https://HOST\"\nproxy = \"" + proxy407.URL + "\"", class: errdefs.IsUnavailable, words: []string{"proxy " + proxy407.addr() + " answers 407", "check the proxy"}},
		{name: "proxy refuses a request", host: "r.example", hosts: "server = \"http://HOST\"\nproxy = \"" + proxy407.URL + "\"", class: errdefs.IsUnavailable, words: []string{"the proxy before HOST wants a login", "check the proxy"}},
		{name: "proxy is not there", host: "r.example", hosts: "server = \"http://HOST\"\nproxy = \"http://" + refusing(t) + "\"", class: errdefs.IsUnavailable, words: []string{"proxyconnect", "check the proxy"}},
		{name: "SOCKS proxy is not there", host: "r.example", hosts: "server = \"http://HOST\"\nproxy = \"socks5://" + refusing(t) + "\"", class: errdefs.IsUnavailable, words: []string{"connection refused", "check the proxy"}},
		{name: "hosts.toml is not TOML", host: "r.example", hosts: "server = \"http://x\"\nca = [", class: errdefs.IsInvalidArgument, words: []string{"hosts.toml, line 2", "--hosts-dir"}},
		{name: "hosts.toml with an unknown capability", host: "r.example", hosts: "[host.\"http://x\"]\ncapabilities = [\"fly\"]", class: errdefs.IsInvalidArgument, words: []string{"unknown capability fly", "--hosts-dir"}},
		{name: "proxy of an unknown kind", host: "r.example", hosts: "proxy = \"ftp://u:hunter2@x\"", class: errdefs.IsInvalidArgument, words: []string{"proxy is not", "--hosts-dir"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := tt.host
			if tt.serve != nil {
				host = newHost(t, tt.serve).addr()
			}
			tt.o.HostsDir = hostsDir(t, host, strings.ReplaceAll(tt.hosts, "HOST", host))
			_, _, err := newClient(t, tt.o).Manifest(t.Context(), named(t, host+"/a/b:v1"))
			if err == nil || !tt.class(err) {
				t.Fatalf("error %v", err)
			}
			for _, w := range append(tt.words, "HOST/a/b:v1: ") {
				if w = strings.ReplaceAll(w, "HOST", host); !strings.Contains(err.Error(), w) {
					t.Errorf("%q not in: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a password in: %v", err)
			}
		})
	}
}

// Whoever asks too often is told how long to wait, and waits it if it is short.
func TestRetryAfterIsWaited(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
			return
		}
		w.Write([]byte(imageManifest)) //nolint:errcheck // the client tells
	})
	begin := time.Now()
	if _, _, err := newClient(t, Options{}).Manifest(t.Context(), named(t, s.addr()+"/a/b:v1")); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < time.Second {
		t.Errorf("asked again after %v", d)
	}
}

// tokenless is a registry, and a token server, that lets nobody in.
func tokenless(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/token" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
	}
	w.WriteHeader(http.StatusUnauthorized)
}

// everywhere is a keychain with one login for all registries.
type everywhere authn.AuthConfig

func (e everywhere) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig(e)), nil
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "-1", "99999999999999999999", "2147483648", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"} {
		f.Add(s, int64(0))
		f.Add(s, int64(1)<<40)
	}
	f.Fuzz(func(t *testing.T, s string, now int64) {
		if got := retryAfter(s, time.Unix(now, 0)); got < 0 {
			t.Fatalf("%q at %d: %v", s, now, got)
		}
	})
}
