package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
)

// tokenRegistry is a registry and its token server.
type tokenRegistry struct {
	registry, realm *host
	content         []byte

	issued   atomic.Int64
	accepted atomic.Pointer[string] // Authorization that the registry takes now
	expires  int                    // expires_in, seconds; 0: not told
	quiet    bool                   // no error= in challenges to refused tokens
	answer   atomic.Pointer[http.HandlerFunc]
}

func newTokenRegistry(t *testing.T) *tokenRegistry {
	t.Helper()
	r := &tokenRegistry{content: noise(100_000)}
	r.accepted.Store(new(string))
	r.realm = newHost(t, func(w http.ResponseWriter, req *http.Request) {
		if h := r.answer.Load(); h != nil {
			(*h)(w, req)
			return
		}
		r.issue(w)
	})
	r.registry = newHost(t, func(w http.ResponseWriter, req *http.Request) {
		got := req.Header.Get("Authorization")
		if got == "" || got != *r.accepted.Load() {
			ch := fmt.Sprintf(`Bearer realm="%s/token",service="reg",scope="repository:a/b:pull"`, r.realm.URL)
			if got != "" && !r.quiet {
				ch += `,error="invalid_token"`
			}
			w.Header().Set("WWW-Authenticate", ch)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if isBlob(req) {
			serveBlob(w, req, r.content)
			return
		}
		w.Write([]byte(imageManifest)) //nolint:errcheck // the client tells
	})
	return r
}

func (r *tokenRegistry) issue(w http.ResponseWriter) {
	token := fmt.Sprintf("t%d", r.issued.Add(1))
	value := "Bearer " + token
	r.accepted.Store(&value)
	doc := map[string]any{"token": token}
	if r.expires != 0 {
		doc["expires_in"] = r.expires
	}
	json.NewEncoder(w).Encode(doc) //nolint:errcheck // the client tells
}

func (r *tokenRegistry) revoke() { r.accepted.Store(new(string)) }

func TestTokenAnonymous(t *testing.T) {
	t.Parallel()
	r := newTokenRegistry(t)
	c := newClient(t, Options{UserAgent: "test/1"})
	ref, d := blobRef(t, r.registry.addr(), r.content)
	if _, _, err := c.Manifest(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	b := c.Open(ref, d)
	wantRange(t, b, r.content, 1, 10)
	wantRange(t, b, r.content, 2, 10)
	asked := r.realm.requests()
	if len(asked) != 1 || len(r.registry.requests()) != 4 {
		t.Fatalf("%d token requests, %d others", len(asked), len(r.registry.requests()))
	}
	q := asked[0].URL.Query()
	got := []string{asked[0].Method, q.Get("service"), q.Get("scope"), asked[0].Header.Get("Authorization"), asked[0].UserAgent()}
	if diff := cmp.Diff([]string{"GET", "reg", "repository:a/b:pull", "", "test/1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTokenOfLogin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		login  authn.AuthConfig
		method string
		basic  string
		form   string // grant_type and secret
		tokens int
	}{
		{name: "password", login: authn.AuthConfig{Username: "u", Password: "p"}, method: "GET", basic: "u:p", tokens: 1},
		{name: "identity token", login: authn.AuthConfig{IdentityToken: "id"}, method: "POST", form: "refresh_token id", tokens: 1},
		{name: "identity token, answered as a password is", login: authn.AuthConfig{IdentityToken: "id2"}, method: "POST", form: "refresh_token id2", tokens: 1},
		{name: "registry token", login: authn.AuthConfig{RegistryToken: "reg"}, tokens: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newTokenRegistry(t)
			var form string
			answer := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodPost {
					form = req.PostFormValue("grant_type") + " " + req.PostFormValue("refresh_token")
					value := "Bearer posted"
					r.accepted.Store(&value)
					name := "access_token"
					if tt.login.IdentityToken == "id2" {
						name = "token"
					}
					fmt.Fprintf(w, `{%q:"posted"}`, name)
					return
				}
				r.issue(w)
			})
			r.answer.Store(&answer)
			value := "Bearer reg"
			r.accepted.Store(&value)
			c := newClient(t, Options{Keychain: keys{r.registry.addr(): tt.login}})
			if _, _, err := c.Manifest(t.Context(), named(t, r.registry.addr()+"/a/b:v1")); err != nil {
				t.Fatal(err)
			}
			asked := r.realm.requests()
			if len(asked) != tt.tokens {
				t.Fatalf("%d token requests", len(asked))
			}
			if tt.tokens == 0 {
				return
			}
			user, pass, _ := asked[0].BasicAuth()
			if asked[0].Method != tt.method || strings.Trim(user+":"+pass, ":") != tt.basic || form != tt.form {
				t.Errorf("%s, %s:%s, form %q", asked[0].Method, user, pass, form)
			}
		})
	}
}

// A token ends while a blob is being read: the next request renews it, with
// the registry saying why, and without.
func TestTokenEndsInUse(t *testing.T) {
	t.Parallel()
	for _, quiet := range []bool{false, true} {
		r := newTokenRegistry(t)
		r.quiet = quiet
		c := newClient(t, Options{})
		ref, d := blobRef(t, r.registry.addr(), r.content)
		b := c.Open(ref, d)
		for i := range int64(3) {
			wantRange(t, b, r.content, i, 10)
			r.revoke()
		}
		if n := len(r.realm.requests()); n != 3 {
			t.Errorf("quiet %v: %d token requests", quiet, n)
		}
	}
}

func TestTokenRenewedAheadOfExpiry(t *testing.T) {
	t.Parallel()
	r := newTokenRegistry(t)
	r.expires = 1000
	c := newClient(t, Options{})
	ref, d := blobRef(t, r.registry.addr(), r.content)
	b := c.Open(ref, d)
	wantRange(t, b, r.content, 1, 10)
	reg, err := c.registry(t.Context(), r.registry.addr())
	if err != nil {
		t.Fatal(err)
	}
	a := reg.endpoints[0].authority(pulling("a/b"))
	if left := time.Until(a.expires); left > 900*time.Second || left < 890*time.Second {
		t.Errorf("renewal in %v, token lives 1000 s", left)
	}
	a.mu.Lock()
	a.expires = time.Now().Add(-time.Second)
	a.mu.Unlock()
	before := len(r.registry.requests())
	wantRange(t, b, r.content, 1, 10)
	if tokens, others := len(r.realm.requests()), len(r.registry.requests())-before; tokens != 2 || others != 1 {
		t.Errorf("%d token requests, %d others", tokens, others)
	}
}

func TestTokenFetchedOnceByMany(t *testing.T) {
	t.Parallel()
	r := newTokenRegistry(t)
	c := newClient(t, Options{})
	ref, d := blobRef(t, r.registry.addr(), r.content)
	var wg sync.WaitGroup
	for i := range int64(16) {
		b := c.Open(ref, d)
		wg.Go(func() {
			if _, err := readRange(t.Context(), b, i, 10); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(r.realm.requests()); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

// What one caller's cancellation or a blip of the token server broke must not
// stay broken.
func TestTokenFailureNotRemembered(t *testing.T) {
	t.Parallel()
	r := newTokenRegistry(t)
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	answer := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch asked.Add(1) {
		case 1:
			cancel()
			<-req.Context().Done()
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			w.Write([]byte(`{`)) //nolint:errcheck // the client tells
		default:
			r.issue(w)
		}
	})
	r.answer.Store(&answer)
	c := newClient(t, Options{})
	ref := named(t, r.registry.addr()+"/a/b:v1")
	if _, _, err := c.Manifest(ctx, ref); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if _, _, err := c.Manifest(t.Context(), ref); err != nil {
		t.Fatalf("after: %v", err)
	}
}

func TestTokenRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		class  func(error) bool
		words  string
		tokens int
	}{
		{"credentials wrong", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, errdefs.IsUnauthorized, "peel login", 1},
		{"denied", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, errdefs.IsUnauthorized, "peel login", 1},
		{"token without the right", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"token":"useless"}`)) //nolint:errcheck // the client tells
		}, errdefs.IsUnauthorized, "not found on", 1},
		{"no token", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{}`)) //nolint:errcheck // the client tells
		}, errdefs.IsUnknown, "gives no token in its answer", 1},
		{"no such page", http.NotFound, errdefs.IsUnknown, "gives no token", 1},
		{"down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, errdefs.IsUnavailable, "4 attempts", 4},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"token":"` + strings.Repeat("x", maxTokenAnswer) + `"}`)) //nolint:errcheck // the client tells
		}, errdefs.IsUnknown, "more than 1048576 bytes", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newTokenRegistry(t)
			r.answer.Store(&tt.answer)
			c := newClient(t, Options{Keychain: keys{r.registry.addr(): {Username: "u", Password: "hunter2"}}})
			_, _, err := c.Manifest(t.Context(), named(t, r.registry.addr()+"/a/b:v1"))
			if err == nil || !tt.class(err) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("error %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "scope=") {
				t.Errorf("the error tells too much: %v", err)
			}
			if n := len(r.realm.requests()); n != tt.tokens {
				t.Errorf("%d token requests", n)
			}
		})
	}
}

// A token server that redirects elsewhere would hand the password on.
func TestTokenRedirectRefused(t *testing.T) {
	t.Parallel()
	thief := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"token":"x"}`)) //nolint:errcheck // the client tells
	})
	for name, login := range map[string]authn.AuthConfig{
		"password":       {Username: "u", Password: "p"},
		"identity token": {IdentityToken: "id"},
	} {
		r := newTokenRegistry(t)
		answer := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, thief.URL, http.StatusTemporaryRedirect)
		})
		r.answer.Store(&answer)
		c := newClient(t, Options{Keychain: keys{r.registry.addr(): login}})
		if _, _, err := c.Manifest(t.Context(), named(t, r.registry.addr()+"/a/b:v1")); !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(r.realm.requests()); n != 1 {
			t.Errorf("%s: the token server was asked %d times", name, n)
		}
	}
	if n := len(thief.requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestCheckRealm(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		base, realm string
		ok          bool
	}{
		{"https://inside.example/v2", "https://10.0.0.2/token", true}, // by its address
		{"https://r.example/v2", "https://auth.example/token", true},
		{"https://r.example/v2", "https://auth.example/token?x=y", true},
		{"https://r.example/v2", "http://auth.example/token", false},
		{"https://r.example/v2", "https://127.0.0.1/token", false},
		{"https://r.example/v2", "https://localhost/token", false},
		{"https://r.example/v2", "token", false},
		{"https://r.example/v2", "file:///token", false},
		{"http://127.0.0.1:5000/v2", "http://127.0.0.1:5001/token", true},
		{"http://10.0.0.1:5000/v2", "http://10.0.0.2/token", true},
	} {
		e := &endpoint{base: mustURL(t, tt.base)}
		e.public.Store(e.base.Host == "r.example")
		if _, err := e.checkRealm(tt.realm); (err == nil) != tt.ok {
			t.Errorf("%s asks for %s: %v", tt.base, tt.realm, err)
		}
	}
}

func TestBasic(t *testing.T) {
	t.Parallel()
	content := noise(1000)
	s := newHost(t, challenge(func(w http.ResponseWriter, r *http.Request) { serveBlob(w, r, content) }))
	ref, d := blobRef(t, s.addr(), content)
	c := newClient(t, Options{Keychain: keys{s.addr(): {Username: "user", Password: "pass"}}})
	b := c.Open(ref, d)
	wantRange(t, b, content, 1, 10)
	wantRange(t, b, content, 2, 10)
	if n := len(s.requests()); n != 3 {
		t.Errorf("%d requests", n)
	}
	c = newClient(t, Options{Keychain: keys{s.addr(): {Username: "user", Password: "wrong"}}})
	if _, err := readRange(t.Context(), c.Open(ref, d), 1, 10); !errors.Is(err, ErrLogin) {
		t.Errorf("wrong password: %v", err)
	}
	if n := len(s.requests()); n != 5 {
		t.Errorf("%d requests, a wrong password was tried more than once", n-3)
	}
}

type brokenKeys struct{}

func (brokenKeys) Resolve(authn.Resource) (authn.Authenticator, error) {
	return nil, errors.New("helper is gone")
}

// A broken credential helper does not matter until credentials do.
func TestBrokenKeychain(t *testing.T) {
	t.Parallel()
	r := newTokenRegistry(t)
	c := newClient(t, Options{Keychain: brokenKeys{}})
	if _, _, err := c.Manifest(t.Context(), named(t, r.registry.addr()+"/a/b:v1")); err != nil {
		t.Errorf("anonymous: %v", err)
	}
	s := newHost(t, challenge(http.NotFound))
	_, _, err := c.Manifest(t.Context(), named(t, s.addr()+"/a/b:v1"))
	if !errors.Is(err, ErrLogin) || !strings.Contains(err.Error(), "helper is gone") {
		t.Errorf("login: %v", err)
	}
}
