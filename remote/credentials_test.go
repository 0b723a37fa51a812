package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

// home makes an environment in which nobody is logged in anywhere.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, value := range map[string]string{
		"HOME": dir, "DOCKER_CONFIG": "", "DOCKER_AUTH_CONFIG": "", "REGISTRY_AUTH_FILE": "", "XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": "",
	} {
		t.Setenv(name, value)
	}
	return dir
}

// write makes a file, and the folders above it, below dir.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// auths is a file with logins: "user:password" by key.
func auths(logins map[string]string) string {
	doc := map[string]map[string]map[string]string{"auths": {}}
	for key, login := range logins {
		doc["auths"][key] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(login))}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// credentialHelper puts docker-credential-NAME in front of the PATH. It counts its
// calls in the file that it returns.
func credentialHelper(t *testing.T, name, script string) string {
	t.Helper()
	bin := t.TempDir()
	calls := filepath.Join(bin, "calls")
	program := "#!/bin/sh\nread host\necho \"$1 $host\" >> " + calls + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return calls
}

func keychainFinds(t *testing.T, host, repo string) (string, error) {
	t.Helper()
	found, err := authn.Resolve(t.Context(), DefaultKeychain(), resource{host, repo})
	if err != nil {
		return "", err
	}
	cfg, err := authn.Authorization(t.Context(), found)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Trim(cfg.Username+":"+cfg.Password+cfg.IdentityToken+cfg.RegistryToken, ":"), nil
}

func TestKeychainKeys(t *testing.T) {
	dir := home(t)
	write(t, dir, ".docker/config.json", auths(map[string]string{
		"quay.io": "host:1", "quay.io/org": "org:2", "quay.io/org/repo": "repo:3", "quay.io/organs": "other:4",
		"scoped.example/org":          "scoped:5",
		"https://index.docker.io/v1/": "hub:6", "docker.io/own": "own:7",
		"https://old.example/v2/": "old:8", "port.example:5000": "port:9", "slash.example/v1/": "slash:10",
	}))
	for _, tt := range []struct{ name, host, repo, want string }{
		{"host", "quay.io", "else/x", "host:1"},
		{"path", "quay.io", "org/x", "org:2"},
		{"longest path", "quay.io", "org/repo", "repo:3"},
		{"below the longest path", "quay.io", "org/repo/deep", "repo:3"},
		{"part of a word", "quay.io", "orga/x", "host:1"},
		{"no repository", "quay.io", "", "host:1"},
		{"path alone", "scoped.example", "org/x", "scoped:5"},
		{"path of somebody else", "scoped.example", "else/x", ""},
		{"path, for the host", "scoped.example", "", ""},
		{"hub", "docker.io", "library/alpine", "hub:6"},
		{"hub by docker's name", "index.docker.io", "library/alpine", "hub:6"},
		{"hub by its host", "registry-1.docker.io", "library/alpine", "hub:6"},
		{"path of the hub", "index.docker.io", "own/x", "own:7"},
		{"address", "old.example", "x", "old:8"},
		{"port", "port.example:5000", "x", "port:9"},
		{"other port", "port.example", "x", ""},
		{"version", "slash.example", "x", "slash:10"},
		{"unknown", "none.example", "x", ""},
	} {
		if got, err := keychainFinds(t, tt.host, tt.repo); err != nil || got != tt.want {
			t.Errorf("%s: found %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestKeychainFiles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string // content by name below the home folder
		env   map[string]string // HOME is the home folder
		want  string
	}{
		{"none", nil, nil, ""},
		{"docker's", map[string]string{".docker/config.json": "docker:1"}, nil, "docker:1"},
		{"docker's elsewhere", map[string]string{"d/config.json": "docker:2", ".docker/config.json": "docker:1"}, map[string]string{"DOCKER_CONFIG": "HOME/d"}, "docker:2"},
		{"podman's", map[string]string{".config/containers/auth.json": "podman:3"}, nil, "podman:3"},
		{"podman's of this session", map[string]string{"run/containers/auth.json": "podman:4", ".config/containers/auth.json": "podman:3"}, map[string]string{"XDG_RUNTIME_DIR": "HOME/run"}, "podman:4"},
		{"podman's, elsewhere", map[string]string{"cfg/containers/auth.json": "podman:5"}, map[string]string{"XDG_CONFIG_HOME": "HOME/cfg"}, "podman:5"},
		{"a file by name", map[string]string{"my.json": "named:6", ".docker/config.json": "docker:1"}, map[string]string{"REGISTRY_AUTH_FILE": "HOME/my.json"}, "named:6"},
		{"a file by name that lacks the host", map[string]string{"my.json": "", ".docker/config.json": "docker:1"}, map[string]string{"REGISTRY_AUTH_FILE": "HOME/my.json"}, "docker:1"},
		{"both", map[string]string{".docker/config.json": "", ".config/containers/auth.json": "podman:3"}, nil, "podman:3"},
		{"broken and good", map[string]string{".docker/config.json": "{", ".config/containers/auth.json": "podman:3"}, nil, "podman:3"},
		{"the environment", map[string]string{".docker/config.json": "docker:1"}, map[string]string{"DOCKER_AUTH_CONFIG": auths(map[string]string{"r.example": "env:7"})}, "env:7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := home(t)
			for name, login := range tt.files {
				content := auths(map[string]string{"r.example": login})
				switch login {
				case "":
					content = auths(map[string]string{"else.example": "x:y"})
				case "{":
					content = "{"
				}
				write(t, dir, name, content)
			}
			for name, value := range tt.env {
				t.Setenv(name, strings.ReplaceAll(value, "HOME", dir))
			}
			if got, err := keychainFinds(t, "r.example", "a/b"); err != nil || got != tt.want {
				t.Errorf("found %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestKeychainHelpers(t *testing.T) {
	const answer = `echo '{"ServerURL":"x","Username":"helped","Secret":"h"}'`
	for _, tt := range []struct {
		name, config, script, want, problem string
		asked                               string
	}{
		{"for the host", `{"credHelpers":{"r.example":"test"}}`, answer, "helped:h", "", "get r.example"},
		{"for all", `{"credsStore":"test","auths":{"r.example":{}}}`, answer, "helped:h", "", "get r.example"},
		{"for another host", `{"credHelpers":{"x.example":"test"}}`, answer, "", "", ""},
		{"identity token", `{"credsStore":"test"}`, `echo '{"Username":"<token>","Secret":"id"}'`, "id", "", "get r.example"},
		{"knows nothing", `{"credsStore":"test"}`, `echo "credentials not found in native keychain"; exit 1`, "", "", "get r.example"},
		{"knows nothing, but the file does", `{"credsStore":"test","auths":{"r.example":{"auth":"dTpw"}}}`, `echo "credentials not found in native keychain"; exit 1`, "u:p", "", "get r.example"},
		{"path beats the helper for all", `{"credsStore":"test","auths":{"r.example/a":{"auth":"dTpw"}}}`, answer, "u:p", "", ""},
		{"fails", `{"credsStore":"test"}`, `echo "locked"; exit 1`, "", "docker-credential-test: error getting credentials", "get r.example"},
		{"is missing", `{"credsStore":"absent"}`, "", "", "docker-credential-absent", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			write(t, home(t), ".docker/config.json", tt.config)
			calls := credentialHelper(t, "test", tt.script)
			got, err := keychainFinds(t, "r.example", "a/b")
			if got != tt.want || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("found %q, %v", got, err)
			}
			asked, _ := os.ReadFile(calls) // not there, if nobody asked
			if strings.TrimSpace(string(asked)) != tt.asked {
				t.Errorf("asked %q, want %q", asked, tt.asked)
			}
		})
	}
}

// A helper that hangs does not outlive whoever waits for it.
func TestHelperObeysContext(t *testing.T) {
	write(t, home(t), ".docker/config.json", `{"credsStore":"test"}`)
	credentialHelper(t, "test", "exec sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan error, 1)
	go func() {
		_, err := authn.Resolve(ctx, DefaultKeychain(), resource{"r.example", "a"})
		calls <- err
	}()
	cancel()
	if err := <-calls; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// Secrets of helpers expire: each token is asked for with a new one.
func TestHelperAskedForEveryToken(t *testing.T) {
	r := newTokenRegistry(t)
	write(t, home(t), ".docker/config.json", fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, r.registry.addr()))
	calls := credentialHelper(t, "test", `echo "{\"Username\":\"u\",\"Secret\":\"$(wc -l < "$(dirname "$0")/calls" | tr -d ' ')\"}"`)
	c := newClient(t, Options{Keychain: DefaultKeychain()})
	ref, d := blobRef(t, r.registry.addr(), r.content)
	b := c.Open(ref, d)
	for i := range int64(3) {
		wantRange(t, b, r.content, i, 10)
		r.revoke()
	}
	for i, req := range r.realm.requests() {
		if _, secret, _ := req.BasicAuth(); secret != fmt.Sprint(i+1) {
			t.Errorf("token %d asked for with secret %q", i, secret)
		}
	}
	if raw, err := os.ReadFile(calls); err != nil || strings.Count(string(raw), "\n") != 3 {
		t.Errorf("helper called: %q, %v", raw, err)
	}
}

// What the command line says beats the keychain, and goes to the registry and
// its token realm only.
func TestCredentialsOfCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		creds  func(registry string) *Credentials
		basic  string // at the realm
		tokens int
	}{
		{"password", func(r string) *Credentials { return &Credentials{Registry: r, Username: "me", Password: "mine"} }, "me:mine", 1},
		{"any registry", func(string) *Credentials { return &Credentials{Username: "me", Password: "mine"} }, "me:mine", 1},
		{"another registry's", func(string) *Credentials {
			return &Credentials{Registry: "else.example", Username: "me", Password: "mine"}
		}, "chain:chained", 1},
		{"token", func(r string) *Credentials { return &Credentials{Registry: r, Token: "tok"} }, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newTokenRegistry(t)
			value := "Bearer tok"
			r.accepted.Store(&value)
			mirror := newHost(t, challenge(http.NotFound))
			toml := fmt.Sprintf("server = %q\n[host.%q]\n", r.registry.URL, mirror.URL)
			c := newClient(t, Options{
				Credentials: tt.creds(r.registry.addr()), HostsDir: hostsDir(t, r.registry.addr(), toml),
				Keychain: keys{r.registry.addr(): {Username: "chain", Password: "chained"}},
			})
			if _, _, err := c.Manifest(t.Context(), named(t, r.registry.addr()+"/a/b:v1")); err != nil {
				t.Fatal(err)
			}
			if n := len(r.realm.requests()); n != tt.tokens {
				t.Fatalf("%d token requests", n)
			}
			if tt.tokens > 0 {
				user, pass, _ := r.realm.requests()[0].BasicAuth()
				if user+":"+pass != tt.basic {
					t.Errorf("the realm got %s:%s", user, pass)
				}
			}
			for _, req := range mirror.requests() {
				if a := req.Header.Get("Authorization"); a != "" {
					t.Errorf("the mirror got %s", a)
				}
			}
			if len(mirror.requests()) == 0 {
				t.Error("the mirror was not asked")
			}
		})
	}
}

func TestKeepAndDropLogin(t *testing.T) {
	const helper = `case $(tail -1 "$(dirname "$0")/calls") in get*) echo '{"Username":"kept","Secret":"s"}';; esac`
	for _, tt := range []struct {
		name, domain, config string
		env                  map[string]string
		helper               string // that has it
		file                 string
		want                 string // what the keychain finds
	}{
		{name: "first login", domain: "r.example", file: ".docker/config.json", want: "me:mine"},
		{name: "hub", domain: "docker.io", file: ".docker/config.json", want: "me:mine"},
		{name: "other settings stay", domain: "r.example", config: `{"auths":{"x.example":{"auth":"dTpw"}},"detachKeys":"ctrl-x"}`, file: ".docker/config.json", want: "me:mine"},
		{name: "helper of the host", domain: "r.example", config: `{"credHelpers":{"r.example":"test"}}`, helper: "test", file: ".docker/config.json", want: "kept:s"},
		{name: "helper of all", domain: "r.example", config: `{"credsStore":"test"}`, helper: "test", file: ".docker/config.json", want: "kept:s"},
		{name: "podman's file", domain: "r.example", env: map[string]string{"REGISTRY_AUTH_FILE": "HOME/auth.json"}, file: "auth.json", want: "me:mine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := home(t)
			t.Setenv("PATH", "/bin:/usr/bin")
			calls := credentialHelper(t, "test", helper)
			for name, value := range tt.env {
				t.Setenv(name, strings.ReplaceAll(value, "HOME", dir))
			}
			if tt.config != "" {
				write(t, dir, tt.file, tt.config)
				if err := os.Chmod(filepath.Join(dir, tt.file), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			kept, err := KeepLogin(tt.domain, Credentials{Username: "me", Password: "mine"})
			if err != nil {
				t.Fatal(err)
			}
			if kept.File != filepath.Join(dir, tt.file) || kept.Helper != tt.helper {
				t.Errorf("kept in %+v", kept)
			}
			if fi, err := os.Stat(kept.File); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", fi.Mode(), err)
			}
			raw, err := os.ReadFile(kept.File)
			if err != nil || strings.Contains(string(raw), "detachKeys") != strings.Contains(tt.config, "detachKeys") {
				t.Errorf("%v: %s", err, raw)
			}
			if got, err := keychainFinds(t, tt.domain, "a"); err != nil || got != tt.want {
				t.Errorf("found %q, %v", got, err)
			}
			if _, found, err := DropLogin(tt.domain); err != nil || !found {
				t.Errorf("dropped: %v, %v", found, err)
			}
			if tt.helper != "" {
				if raw, _ := os.ReadFile(calls); !strings.Contains(string(raw), "erase r.example") {
					t.Errorf("helper called: %q", raw)
				}
				return
			}
			if got, err := keychainFinds(t, tt.domain, "a"); err != nil || got != "" {
				t.Errorf("after: found %q, %v", got, err)
			}
			if _, found, err := DropLogin(tt.domain); err != nil || found {
				t.Errorf("dropped again: %v, %v", found, err)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		err   error
		words string
	}{
		{"right", challenge(saying(200, nil, "{}")), nil, ""},
		{"no login wanted", saying(200, nil, "{}"), nil, ""},
		{"known, but not let in", challenge(saying(403, nil, "")), nil, ""},
		{"wrong", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(401)
		}, ErrLogin, "does not take this user name and password"},
		{"no registry", http.NotFound, ErrNotFound, "does not answer as a registry"},
		{"down", saying(503, nil, ""), ErrUnreachable, "4 attempts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newHost(t, tt.serve)
			c := newClient(t, Options{Keychain: keys{s.addr(): {Username: "never", Password: "used"}}})
			err := c.Login(t.Context(), s.addr(), Credentials{Username: "user", Password: "pass"})
			if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("error %v", err)
			}
			for _, r := range s.requests() {
				if user, _, ok := r.BasicAuth(); r.URL.Path != "/v2/" || ok && user != "user" {
					t.Errorf("asked for %s as %s", r.URL.Path, user)
				}
			}
		})
	}
}

// A login is kept by the name under which it will be looked for.
func TestLoginOfAnotherHost(t *testing.T) {
	t.Parallel()
	s := newHost(t, challenge(saying(200, nil, "{}")))
	c := newClient(t, Options{HostsDir: hostsDir(t, "r.example", "server = \""+s.URL+"\"")})
	err := c.Login(t.Context(), "r.example", Credentials{Username: "user", Password: "pass"})
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "peel login "+s.addr()) || len(s.requests()) != 0 {
		t.Errorf("error %v", err)
	}
}

func TestLoginByToken(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 401, 403} {
		r := newTokenRegistry(t)
		answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status == 200 {
				r.issue(w)
				return
			}
			w.WriteHeader(status)
		})
		r.answer.Store(&answer)
		err := newClient(t, Options{}).Login(t.Context(), r.registry.addr(), Credentials{Username: "u", Password: "p"})
		if (err == nil) != (status == 200) || err != nil && !errors.Is(err, ErrLogin) {
			t.Errorf("%d: %v", status, err)
		}
		asked := r.realm.requests()
		if len(asked) != 1 {
			t.Fatalf("%d token requests", len(asked))
		}
		if user, pass, _ := asked[0].BasicAuth(); user+pass != "up" {
			t.Errorf("asked as %s:%s", user, pass)
		}
	}
}
