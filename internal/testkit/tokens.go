//go:build linux

package testkit

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Guard says how a registry is guarded.
type Guard struct {
	TokenLife time.Duration     // after which a token is refused
	Users     map[string]string // names and passwords; none: everybody gets tokens
	Refresh   string            // an identity token that is as good as a password; "": none
	URLLife   time.Duration     // blobs are redirected to URLs that are good for so long; 0: not redirected
}

// A Guarded is a registry that asks for short-lived tokens (distribution's
// "Token Authentication"), and sends whoever wants a blob over two hops to
// another server with a URL that soon expires. Each of the four servers has
// seen its own requests.
type Guarded struct {
	*server        // the registry
	Tokens  Server // gives tokens
	Hop     Server // redirects once more
	Blobs   Server // has the blobs, for signed URLs only
	guard   Guard
	next    http.Handler

	mu     sync.Mutex // guards what follows
	issued map[string]token
	given  int // tokens
	late   int // requests with a token that had expired
	stale  int // requests with a URL that had expired
}

// A Server is one of a test's servers, as a test looks at it.
type Server interface {
	Host() string
	Wire() []Wire
	Stop()
	Start()
}

type token struct {
	scope   string
	expires time.Time
}

// NewGuarded starts the servers before the registry at host.
func NewGuarded(t testing.TB, host string, guard Guard) *Guarded {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	g := &Guarded{guard: guard, issued: map[string]token{}}
	g.next = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: host})
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Authorization")
		},
		Transport: transport, ErrorLog: quiet(),
	}
	g.Blobs = newServer(t, http.HandlerFunc(g.blob))
	g.Hop = newServer(t, http.HandlerFunc(g.hop))
	g.Tokens = newServer(t, http.HandlerFunc(g.token))
	g.server = newServer(t, http.HandlerFunc(g.registry))
	return g
}

// Ref names an image of the registry.
func (g *Guarded) Ref(repo, tag string) string { return g.Host() + "/" + repo + ":" + tag }

// Counts are how many tokens were given, and how many requests came with a
// token, and with a URL, that had expired.
func (g *Guarded) Counts() (tokens, expiredTokens, expiredURLs int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.given, g.late, g.stale
}

// registry lets requests with a fitting token through.
func (g *Guarded) registry(w http.ResponseWriter, r *http.Request) {
	scope := scopeOf(r.URL.Path)
	if problem := g.refuses(r, scope); problem != "" {
		challenge := fmt.Sprintf(`Bearer realm="http://%s/token",service="%s"`, g.Tokens.Host(), g.Host())
		if scope != "" {
			challenge += fmt.Sprintf(`,scope="%s"`, scope)
		}
		w.Header().Set("Www-Authenticate", challenge+`,error="`+problem+`"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
		return
	}
	if g.guard.URLLife > 0 && strings.Contains(r.URL.Path, "/blobs/sha256:") {
		to := &url.URL{Scheme: "http", Host: g.Hop.Host(), Path: "/hop" + r.URL.Path}
		http.Redirect(w, r, to.String(), http.StatusTemporaryRedirect)
		return
	}
	g.next.ServeHTTP(w, r)
}

// scopeOf is what a token must allow for a path; "" if any token will do.
func scopeOf(path string) string {
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if repo, _, ok := strings.Cut(strings.TrimPrefix(path, "/v2/"), kind); ok {
			return "repository:" + repo + ":pull"
		}
	}
	return ""
}

// refuses says what is wrong with a request's token.
func (g *Guarded) refuses(r *http.Request, scope string) string {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return "no token"
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	tok, ok := g.issued[bearer]
	switch {
	case !ok:
		return "invalid_token"
	case time.Now().After(tok.expires):
		g.late++
		return "invalid_token"
	case scope != "" && !strings.Contains(tok.scope, strings.TrimSuffix(scope, "pull")):
		return "insufficient_scope"
	}
	return ""
}

// token answers both forms: GET with a password or without, and OAuth2's POST.
func (g *Guarded) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.URL.Path != "/token" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if !g.knows(r) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"details":"incorrect username or password"}`))
		return
	}
	tok := g.Issue(strings.Join(r.Form["scope"], " "))
	answer := map[string]any{"access_token": tok, "expires_in": int(g.guard.TokenLife.Seconds()), "issued_at": time.Now().UTC().Format(time.RFC3339)}
	if r.Method == http.MethodGet {
		answer["token"] = tok
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// Issue makes a token for a scope.
func (g *Guarded) Issue(scope string) string {
	tok := "tok-" + rand.Text()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.given++
	g.issued[tok] = token{scope, time.Now().Add(g.guard.TokenLife)}
	return tok
}

// knows reports whether the token server gives this client tokens.
func (g *Guarded) knows(r *http.Request) bool {
	if len(g.guard.Users) == 0 && g.guard.Refresh == "" {
		return true
	}
	user, password, ok := r.BasicAuth()
	if r.Method == http.MethodPost {
		if r.Form.Get("grant_type") == "refresh_token" {
			return g.guard.Refresh != "" && r.Form.Get("refresh_token") == g.guard.Refresh
		}
		user, password, ok = r.Form.Get("username"), r.Form.Get("password"), true
	}
	want, known := g.guard.Users[user]
	return ok && known && want == password
}
