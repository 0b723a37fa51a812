package remote

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	maxTokenAnswer = 1 << 20 // bytes
	// The lifetime of a token that does not tell it (docker token
	// authentication specification, "expires_in").
	tokenLifetime = 60 * time.Second
	clientID      = "peel"
	formType      = "application/x-www-form-urlencoded"
)

// grant is what a token must allow.
type grant struct {
	repo    string // empty: no token is needed
	actions string // on repo, by comma
	from    string // a repository that may be pulled from as well
}

func pulling(repo string) grant { return grant{repo: repo, actions: "pull"} }
func pushing(repo string) grant { return grant{repo: repo, actions: "pull,push"} }

// scopes are those to ask a token for. The challenge's are taken as they are
// for pulling. For pushing they are widened, since the first request of a push
// is one that pulling would do for, and a token per kind of request is a waste.
func (g grant) scopes(challenge []string) []string {
	if len(challenge) > 0 && g == pulling(g.repo) {
		return challenge
	}
	scopes, known := slices.Clone(challenge), false
	for i, s := range scopes {
		// The registry may know the repository by a longer name.
		prefix := s[:strings.LastIndex(s, ":")+1]
		name, ok := strings.CutPrefix(strings.TrimSuffix(prefix, ":"), "repository:")
		if ok && (name == g.repo || strings.HasSuffix(name, "/"+g.repo)) {
			scopes[i], known = prefix+g.actions, true
		}
	}
	if !known {
		scopes = append(scopes, "repository:"+g.repo+":"+g.actions)
	}
	if g.from != "" {
		scopes = append(scopes, "repository:"+g.from+":pull")
	}
	return scopes
}

// authority keeps the Authorization header for one grant at one endpoint, and
// renews it: when it expires, and when the registry no longer takes it.
//
// containerd's own authorizer does the same with the same functions below, but
// keeps a failed fetch (a cancelled one, too) as the answer for ever, and
// reuses a token that was refused unless the registry says why.
type authority struct {
	endpoint *endpoint
	grant    grant
	// turn holds one token; who takes it may renew. A channel, because a mutex
	// does not obey a context.
	turn chan struct{}

	mu        sync.Mutex // guards what follows
	value     string     // empty: nothing was asked for yet
	expires   time.Time  // zero: with value empty, or never
	challenge []auth.Challenge
}

func (e *endpoint) authority(g grant) *authority {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.authorities[g]
	if a == nil {
		a = &authority{endpoint: e, grant: g, turn: make(chan struct{}, 1)}
		a.turn <- struct{}{}
		e.authorities[g] = a
	}
	return a
}

// current returns the header to send, whether it is still good, and the
// challenge to renew it with.
func (a *authority) current() (string, bool, []auth.Challenge) {
	a.mu.Lock()
	defer a.mu.Unlock()
	good := a.expires.IsZero() || time.Now().Before(a.expires)
	return a.value, good, a.challenge
}

// header returns the Authorization header, empty if none was ever asked for.
func (c *Client) header(ctx context.Context, a *authority, p *pace) (string, error) {
	value, good, challenge := a.current()
	if good {
		return value, nil
	}
	return c.renew(ctx, a, refusal{stale: value, challenge: challenge}, p)
}

// refusal is what a registry did not take, and what it wants instead.
type refusal struct {
	stale     string
	challenge []auth.Challenge
}

// renew returns another header than the refused one; the same, if the
// credentials do not allow another. Of many callers one asks.
func (c *Client) renew(ctx context.Context, a *authority, r refusal, p *pace) (string, error) {
	select {
	case <-a.turn:
		defer func() { a.turn <- struct{}{} }()
	case <-ctx.Done():
		return "", ended(ctx, nil)
	}
	if value, good, _ := a.current(); good && value != r.stale {
		return value, nil
	}
	value, lifetime, err := c.obtain(ctx, a, r.challenge, p)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.value, a.challenge, a.expires = value, r.challenge, time.Time{}
	if lifetime > 0 {
		a.expires = time.Now().Add(lifetime - lifetime/10)
	}
	return value, nil
}

// obtain answers the strongest challenge that can be answered (they come in
// that order) with what the keychain has. A lifetime of zero means for ever.
func (c *Client) obtain(ctx context.Context, a *authority, challenges []auth.Challenge, p *pace) (string, time.Duration, error) {
	creds, credsErr := c.credentials(ctx, a)
	if credsErr != nil {
		c.o.Log.WithError(credsErr).WithField("registry", a.endpoint.login()).Warn("credentials not readable, going on without")
	}
	value, lifetime, err := c.answer(ctx, a, challenges, creds, p)
	if f, ok := err.(*fault); ok && f.class == ErrLogin && f.cause == nil { //nolint:errorlint // answer returns it bare
		f.cause = credsErr
	}
	return value, lifetime, err
}

// answer answers the first challenge that can be. Its errors are faults.
func (c *Client) answer(ctx context.Context, a *authority, challenges []auth.Challenge, creds *authn.AuthConfig, p *pace) (string, time.Duration, error) {
	host := a.endpoint.base.Host
	for _, ch := range challenges {
		if ch.Scheme == auth.BearerAuth {
			if creds.RegistryToken != "" {
				return "Bearer " + creds.RegistryToken, 0, nil
			}
			return c.token(ctx, a, bearer{ch, creds}, p)
		}
		if ch.Scheme == auth.BasicAuth {
			if creds.Username == "" || creds.Password == "" {
				return "", 0, &fault{class: ErrLogin, text: host + " wants a login", remedy: loginRemedy(a.endpoint.login())}
			}
			raw := creds.Username + ":" + creds.Password
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(raw)), 0, nil
		}
	}
	return "", 0, &fault{class: ErrLogin, text: host + " wants a login of a kind that is not known here"}
}

type bearer struct {
	challenge auth.Challenge
	creds     *authn.AuthConfig
}

// token asks the challenge's realm, as docker does: GET with basic
// authentication or none, POST for an identity token.
func (c *Client) token(ctx context.Context, a *authority, b bearer, p *pace) (string, time.Duration, error) {
	e := a.endpoint
	to, err := auth.GenerateTokenOptions(ctx, e.base.Host, "", "", b.challenge)
	if err != nil {
		return "", 0, &fault{class: ErrAnswer, text: e.base.Host + " asks for a token without saying where"}
	}
	if a.grant.repo != "" {
		to.Scopes = a.grant.scopes(to.Scopes)
	}
	realm, err := e.checkRealm(to.Realm)
	if err != nil {
		return "", 0, err
	}
	ctx, dog := watch(ctx, p)
	defer dog.stop()
	req, err := tokenRequest(ctx, realm, to, b.creds)
	if err != nil {
		return "", 0, &fault{class: ErrAnswer, text: e.base.Host + " names an unusable address for tokens"}
	}
	if e.owns(realm) {
		for k, v := range e.header {
			if req.Header.Get(k) == "" {
				req.Header[k] = v
			}
		}
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	dog.arm()
	got, err := askRealm(e, req)
	dog.disarm(0)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = transportFault(realm.Host, cause)
		}
		return "", 0, err
	}
	return "Bearer " + got.Token, got.lifetime(), nil
}

// tokenRequest is as in docker's specifications: "Requesting a Token", and
// "Getting a Token" by OAuth 2.
func tokenRequest(ctx context.Context, realm *url.URL, to auth.TokenOptions, creds *authn.AuthConfig) (*http.Request, error) {
	if creds.IdentityToken != "" {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {creds.IdentityToken},
			"service": {to.Service}, "client_id": {clientID}, "scope": {strings.Join(to.Scopes, " ")},
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", formType)
		}
		return req, err
	}
	u := *realm
	q := u.Query()
	if to.Service != "" {
		q.Set("service", to.Service)
	}
	for _, s := range to.Scopes {
		q.Add("scope", s)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err == nil && creds.Password != "" {
		req.SetBasicAuth(creds.Username, creds.Password)
	}
	return req, err
}

// tokenAnswer is what a realm gives. Servers of either kind use both names of
// the token.
type tokenAnswer struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	Seconds     int64  `json:"expires_in"`
}

// lifetime is from the answer on: the clock of the server may differ from ours,
// so that issued_at does not help.
func (t tokenAnswer) lifetime() time.Duration {
	if t.Seconds <= 0 {
		return tokenLifetime
	}
	return min(time.Duration(min(t.Seconds, 1<<30))*time.Second, maxLifetime)
}

func askRealm(e *endpoint, req *http.Request) (tokenAnswer, error) {
	var got tokenAnswer
	host := req.URL.Host
	hc := &http.Client{Transport: e.client.Transport, CheckRedirect: sameHost}
	resp, err := hc.Do(req)
	if err != nil {
		return got, transportFault(host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return got, tokenFault(e, host, resp)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	switch {
	case err != nil:
		return got, transportFault(host, err)
	case len(raw) > maxTokenAnswer:
		return got, &fault{class: ErrAnswer, text: fmt.Sprintf("%s sends a token answer of more than %d bytes", host, maxTokenAnswer)}
	case json.Unmarshal(raw, &got) != nil:
		// Often the page of a proxy that is not up yet.
		return got, &fault{class: ErrUnreachable, text: host + " sends a token answer that is not JSON", again: true}
	}
	got.Token = cmp.Or(got.Token, got.AccessToken)
	if got.Token == "" || strings.ContainsAny(got.Token, "\r\n") {
		return got, &fault{class: ErrAnswer, text: host + " gives no token in its answer"}
	}
	return got, nil
}

// checkRealm refuses to carry secrets where the registry's own connection is
// better protected, and from a public one into a private network.
func (e *endpoint) checkRealm(realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &fault{class: ErrAnswer, text: e.base.Host + " names an unusable address for tokens"}
	}
	if e.base.Scheme == "https" && u.Scheme != "https" {
		return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s asks to log in over plain HTTP at %s; refused", e.base.Host, u.Host)}
	}
	if private(u.Hostname()) && e.public.Load() {
		return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s asks to log in at %s, a private address; refused", e.base.Host, u.Host)}
	}
	return u, nil
}

func tokenFault(e *endpoint, realm string, resp *http.Response) *fault {
	f := statusFault(realm, e.login(), resp)
	refused := resp.StatusCode == http.StatusBadRequest && resp.Request.Method == http.MethodPost // RFC 6749, 5.2
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, refused:
		f.class = ErrLogin
		f.text = fmt.Sprintf("%s gives no token for %s", realm, e.base.Host)
		f.remedy = loginRemedy(e.login())
		if code != http.StatusForbidden {
			f.refuses(realm+", which gives the tokens for "+e.base.Host+",", e.login(), resp.Request)
		}
	case code == http.StatusNotFound, code == http.StatusGone:
		f.class, f.remedy = ErrAnswer, ""
		f.text = fmt.Sprintf("%s gives no token for %s (%s)", realm, e.base.Host, resp.Status)
	}
	return f
}

// login is the name that peel login knows the endpoint by.
func (e *endpoint) login() string {
	if e.mirror {
		return e.base.Host
	}
	return e.domain
}

// sameHost lets a token server redirect within itself only: a request with a
// password is not for others.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) >= maxHops || req.URL.Scheme != first.Scheme || hostPort(req.URL) != hostPort(first) {
		return &fault{class: ErrAnswer, text: fmt.Sprintf("%s redirects who wants a token to %s; refused", first.Host, redact(req.URL))}
	}
	return nil
}

// resource is what a keychain is asked for.
type resource struct{ host, repo string }

func (r resource) RegistryStr() string { return r.host }

func (r resource) String() string { return strings.TrimSuffix(r.host+"/"+r.repo, "/") }

// credentials asks the keychain, every time: helpers give out secrets that
// expire. Nothing found is the empty config.
func (c *Client) credentials(ctx context.Context, a *authority) (*authn.AuthConfig, error) {
	if cr := c.o.Credentials; cr != nil && !a.endpoint.mirror && (cr.Registry == "" || cr.Registry == a.endpoint.domain) {
		return &authn.AuthConfig{Username: cr.Username, Password: cr.Password, RegistryToken: cr.Token}, nil
	}
	// docker files its own hub under index.docker.io, podman under docker.io.
	names := []string{a.endpoint.login()}
	if names[0] == "docker.io" {
		names = []string{"index.docker.io", "docker.io"}
	}
	var errs error
	for _, host := range names {
		found, err := authn.Resolve(ctx, c.o.Keychain, resource{host, a.grant.repo})
		if err == nil && found != authn.Anonymous {
			var cfg *authn.AuthConfig
			if cfg, err = authn.Authorization(ctx, found); err == nil && *cfg != (authn.AuthConfig{}) {
				return cfg, nil
			}
		}
		errs = errors.Join(errs, err)
	}
	return &authn.AuthConfig{}, errs
}
