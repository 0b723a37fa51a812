package remote

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/sirupsen/logrus"
)

const (
	hostsFileName = "hosts.toml"
	maxHostsFile  = 1 << 20 // bytes
)

// hostTable has the keys of one host of a hosts.toml that containerd's own
// reader does not know, and those whose absence matters here.
type hostTable struct {
	Proxy        string `toml:"proxy"`
	CA           any    `toml:"ca"`
	Client       any    `toml:"client"`
	SkipVerify   *bool  `toml:"skip_verify"`
	OverridePath bool   `toml:"override_path"`
}

// hostsFile is a hosts.toml, or the certificates that stand in for one.
type hostsFile struct {
	hostTable
	Server string               `toml:"server"`
	Host   map[string]hostTable `toml:"host"`
}

// readHostsFile reads the hosts.toml of dir. Without one, docker's patterns say
// whether dir has certificates.
func readHostsFile(dir string) (*hostsFile, error) {
	f := &hostsFile{}
	if dir == "" {
		return f, nil
	}
	raw, err := readBoundedFile(filepath.Join(dir, hostsFileName), maxHostsFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(raw) == 0 {
		return f, f.certificates(dir)
	}
	if err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(raw, f); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			return nil, fmt.Errorf("%s, line %d: %w", filepath.Join(dir, hostsFileName), line, err)
		}
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, hostsFileName), err)
	}
	return f, nil
}

// certificates notes those that containerd takes from a folder without a
// hosts.toml.
func (f *hostsFile) certificates(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".crt":
			f.CA = e.Name()
		case ".cert":
			f.Client = e.Name()
		}
	}
	return nil
}

func readBoundedFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return raw, err
}

// of is the table of an endpoint. Two tables of one host and path that differ
// in the scheme alone cannot be told apart: containerd may have changed it.
func (f *hostsFile) of(e *endpoint) hostTable {
	if e.origin {
		return f.hostTable
	}
	for name, t := range f.Host {
		if u := t.base(name); u != nil && u.Host == e.base.Host && u.Path == e.base.Path {
			return t
		}
	}
	return hostTable{}
}

// base is where a host's documents lie, as containerd makes it of the host's
// name in the file.
func (t hostTable) base(name string) *url.URL {
	if !strings.HasPrefix(name, "http") {
		name = "https://" + name
	}
	u, err := url.Parse(name)
	if err != nil {
		return nil
	}
	if u.Path != "" {
		u.Path = path.Clean(u.Path)
	}
	if !t.OverridePath && !strings.HasSuffix(u.Path, "/v2") {
		u.Path += "/v2"
	}
	return u
}

// proxy is the address of the host's proxy, nil if it has none of its own.
func (t hostTable) proxy() (*url.URL, error) {
	if t.Proxy == "" {
		return nil, nil //nolint:nilnil // no proxy is the rule
	}
	u, err := url.Parse(t.Proxy)
	if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		// Not as it is written: it may hold a password.
		return nil, errors.New("proxy is not http://, https://, socks5:// or socks5h:// with a host")
	}
	return u, nil
}

// complaints collects what containerd only logs: of a file that it cannot read
// it uses nothing, and whoever wrote the file would not know.
type complaints struct{ errs []error }

func (c *complaints) Levels() []logrus.Level { return []logrus.Level{logrus.ErrorLevel} }

func (c *complaints) Fire(e *logrus.Entry) error {
	err, ok := e.Data[logrus.ErrorKey].(error)
	if !ok {
		err = errors.New(e.Message)
	}
	c.errs = append(c.errs, err)
	return nil
}

// log is one whose errors are collected, and nothing else of it.
func (c *complaints) log() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.AddHook(c)
	return logrus.NewEntry(l)
}
