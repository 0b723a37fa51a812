package remote

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
)

// Kept says where a login was put.
type Kept struct {
	File   string // docker's configuration, or $REGISTRY_AUTH_FILE
	Helper string // the credential helper that has it; empty: the file, unencrypted
}

// KeepLogin puts a login where docker login would, or podman's where
// $REGISTRY_AUTH_FILE says: into the credential helper that is configured or,
// on a machine without any login yet, found; else into the file, which only
// its owner may read. DefaultKeychain finds it there.
func KeepLogin(domain string, cr Credentials) (Kept, error) {
	f, err := loginFile()
	if err != nil {
		return Kept{}, err
	}
	key := aliases(domain)[0]
	login := types.AuthConfig{ServerAddress: key, Username: cr.Username, Password: cr.Password}
	if !f.ContainsAuth() && os.Getenv("REGISTRY_AUTH_FILE") == "" {
		f.CredentialsStore = credentials.DetectDefaultStore(f.CredentialsStore)
	}
	kept := Kept{File: f.Filename, Helper: helperOf(f, key)}
	// Docker's library keeps the mode of a file that is there.
	if err := os.Chmod(f.Filename, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return kept, err
	}
	if kept.Helper != "" {
		return kept, credentials.NewNativeStore(f, kept.Helper).Store(login)
	}
	if f.AuthConfigs == nil {
		f.AuthConfigs = map[string]types.AuthConfig{}
	}
	f.AuthConfigs[key] = login
	return kept, f.Save()
}

// DropLogin removes what KeepLogin has put there for domain, under any of its
// names, and reports whether there was something.
func DropLogin(domain string) (Kept, bool, error) {
	f, err := loginFile()
	if err != nil {
		return Kept{}, false, err
	}
	kept := Kept{File: f.Filename, Helper: helperOf(f, aliases(domain)[0])}
	found := false
	for key := range f.AuthConfigs {
		for _, name := range aliases(domain) {
			if key == name || authKey(key) == name {
				delete(f.AuthConfigs, key)
				found = true
			}
		}
	}
	if kept.Helper != "" {
		key := aliases(domain)[0]
		store := credentials.NewNativeStore(f, kept.Helper)
		if got, err := store.Get(key); err == nil && authConfig(got) != authConfig(types.AuthConfig{}) {
			found = true
		}
		if err := store.Erase(key); err != nil && found {
			return kept, found, err
		}
	}
	if !found {
		return kept, false, nil
	}
	return kept, true, f.Save()
}

func helperOf(f *configfile.ConfigFile, key string) string {
	if name := f.CredentialHelpers[key]; name != "" {
		return name
	}
	return f.CredentialsStore
}

// loginFile reads the file that logins are written to, which may not exist.
func loginFile() (*configfile.ConfigFile, error) {
	name := os.Getenv("REGISTRY_AUTH_FILE")
	if name == "" {
		dir := os.Getenv(config.EnvOverrideConfigDir)
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, err
			}
			dir = filepath.Join(home, ".docker")
		}
		name = filepath.Join(dir, config.ConfigFileName)
	}
	f, err := readAuthFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return configfile.New(name), nil
	}
	if err != nil {
		return nil, err
	}
	f.Filename = name
	return f, nil
}
