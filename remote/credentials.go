package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	helper "github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// Docker Hub goes by this name in docker's files.
	hubKey = "https://index.docker.io/v1/"
	// A helper may ask people for a passphrase.
	helperTimeout = 2 * time.Minute
	maxAuthFile   = 16 << 20 // bytes
)

// DefaultKeychain reads the files in which docker and podman keep logins, anew
// each time, and runs the credential helpers that they name. In order of
// preference: $DOCKER_AUTH_CONFIG (a file's content), $REGISTRY_AUTH_FILE,
// docker's config.json in $DOCKER_CONFIG or ~/.docker, and, unless
// $REGISTRY_AUTH_FILE is set, podman's containers/auth.json in $XDG_RUNTIME_DIR
// and $XDG_CONFIG_HOME or ~/.config.
func DefaultKeychain() authn.Keychain { return keychain{} }

type keychain struct{}

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext returns the first login that a file has for the repository. A
// file that cannot be read does not hide the others.
func (keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	files, errs := authFiles()
	for _, f := range files {
		found, err := lookup(ctx, f, r)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if cfg := authConfig(found); cfg != (authn.AuthConfig{}) {
			return authn.FromConfig(cfg), nil
		}
	}
	return authn.Anonymous, errs
}

func authConfig(a types.AuthConfig) authn.AuthConfig {
	return authn.AuthConfig{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
}

// authFiles reads all files that may hold logins.
func authFiles() ([]*configfile.ConfigFile, error) {
	var files []*configfile.ConfigFile
	var errs error
	if content := os.Getenv(configfile.DockerEnvConfigKey); content != "" {
		f, err := config.LoadFromReader(strings.NewReader(content))
		if err != nil {
			errs = fmt.Errorf("$%s: %w", configfile.DockerEnvConfigKey, err)
		} else {
			files = append(files, f)
		}
	}
	for _, name := range authFileNames() {
		f, err := readAuthFile(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = errors.Join(errs, err)
		default:
			files = append(files, f)
		}
	}
	return files, errs
}

func authFileNames() []string {
	var names []string
	own := os.Getenv("REGISTRY_AUTH_FILE")
	if own != "" {
		names = append(names, own)
	}
	home, _ := os.UserHomeDir() // without one there are no files in it
	add := func(dir string, name ...string) {
		if dir != "" {
			names = append(names, filepath.Join(append([]string{dir}, name...)...))
		}
	}
	if dir := os.Getenv(config.EnvOverrideConfigDir); dir != "" {
		add(dir, config.ConfigFileName)
	} else {
		add(home, ".docker", config.ConfigFileName)
	}
	if own != "" {
		return names
	}
	add(os.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		add(dir, "containers", "auth.json")
	} else {
		add(home, ".config", "containers", "auth.json")
	}
	return names
}

func readAuthFile(name string) (*configfile.ConfigFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := config.LoadFromReader(io.LimitReader(f, maxAuthFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// lookup finds the login for a repository: that of the host's own helper, then
// of the longest path that is a key, then of the helper for all hosts, then of
// the host.
func lookup(ctx context.Context, f *configfile.ConfigFile, r authn.Resource) (types.AuthConfig, error) {
	hosts := aliases(r.RegistryStr())
	for _, h := range hosts {
		if name := f.CredentialHelpers[h]; name != "" {
			return askHelper(ctx, name, h)
		}
	}
	keys := authKeys(f)
	repo := strings.TrimPrefix(r.String(), r.RegistryStr())
	for ; len(repo) > 1; repo = repo[:strings.LastIndexByte(repo, '/')] {
		for _, h := range hosts {
			if a, ok := keys[h+repo]; ok && authConfig(a) != (authn.AuthConfig{}) {
				return a, nil
			}
		}
	}
	var failed error
	if f.CredentialsStore != "" {
		a, err := askHelper(ctx, f.CredentialsStore, hosts[0])
		if err == nil && authConfig(a) != (authn.AuthConfig{}) {
			return a, nil
		}
		failed = err
	}
	for _, h := range hosts {
		if a, ok := keys[h]; ok && authConfig(a) != (authn.AuthConfig{}) {
			return a, nil
		}
	}
	return types.AuthConfig{}, failed
}

// aliases are the keys that a host goes by. The first one is that under which
// docker stores it.
func aliases(host string) []string {
	if IsHub(host) {
		return []string{hubKey, "index.docker.io", "docker.io", "registry-1.docker.io"}
	}
	return []string{host}
}

// IsHub reports whether a host is one of Docker Hub's names.
func IsHub(host string) bool {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return true
	}
	return false
}

// authKeys are the logins of a file under normalised keys: old clients wrote
// addresses with scheme and version. The exact key wins.
func authKeys(f *configfile.ConfigFile) map[string]types.AuthConfig {
	keys := make(map[string]types.AuthConfig, len(f.AuthConfigs))
	for key, a := range f.AuthConfigs {
		short := authKey(key)
		if _, exact := f.AuthConfigs[short]; !exact {
			keys[short] = a
		}
		keys[key] = a
	}
	return keys
}

func authKey(key string) string {
	if u, err := url.Parse(key); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		return u.Host
	}
	host, path, _ := strings.Cut(key, "/")
	if path = strings.TrimSuffix(path, "/"); path == "" || path == "v1" || path == "v2" {
		return host
	}
	return host + "/" + path
}

// askHelper runs a credential helper. What it does not know is no error.
func askHelper(ctx context.Context, name, host string) (types.AuthConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	name = "docker-credential-" + name
	c, err := helper.Get(helperProgram(ctx, name), host)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return types.AuthConfig{}, nil
	case ctx.Err() != nil:
		return types.AuthConfig{}, fmt.Errorf("%s: %w", name, ctx.Err())
	case err != nil:
		return types.AuthConfig{}, fmt.Errorf("%s: %w", name, err)
	case c.Username == "<token>": // as docker has it
		return types.AuthConfig{IdentityToken: c.Secret}, nil
	}
	return types.AuthConfig{Username: c.Username, Password: c.Secret}, nil
}

// helperProgram runs a helper that ends with ctx.
func helperProgram(ctx context.Context, name string) helper.ProgramFunc {
	return func(args ...string) helper.Program {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.WaitDelay = time.Second // for what it started and left
		cmd.Stderr = os.Stderr
		return &program{cmd}
	}
}

type program struct{ *exec.Cmd }

func (p *program) Input(in io.Reader) { p.Stdin = in }
