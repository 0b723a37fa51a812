package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/peelfs/peel/manifest"
	"github.com/peelfs/peel/remote"
)

// maxSecret bounds, in bytes, a password that is read.
const maxSecret = 64 << 10

// clientFlags say how registries are asked, for all commands.
type clientFlags struct {
	hostsDir      string
	plainHTTP     bool
	username      string
	passwordStdin bool
	token         string
	cas           []string
	clientCert    string
	clientKey     string
	insecure      bool
	timeout       time.Duration
	schema        schemaFlag
	foreign       []string
	requestRate   rateFlag

	login *remote.Credentials // of username, password and token; nil for none
}

func (f *clientFlags) add(to *pflag.FlagSet) {
	to.StringVar(&f.hostsDir, "hosts-dir", "", "`folder` with containerd's hosts.toml files (default /etc/containerd/certs.d)")
	to.BoolVar(&f.plainHTTP, "plain-http", false, "ask registries over plain HTTP; loopback ones are in any case, unless --ca, --client-cert or --insecure-skip-verify is given")
	to.StringVar(&f.username, "username", "", "`user` to log in as, at the registry of the first image named; see peel login")
	to.BoolVar(&f.passwordStdin, "password-stdin", false, "read the password of --username from standard input")
	to.StringVar(&f.token, "token", "", "bearer `token` for the registry of the first image named")
	to.StringArrayVar(&f.cas, "ca", nil, "`file` of CA certificates to trust as well as the system's (can be repeated)")
	to.StringVar(&f.clientCert, "client-cert", "", "`file` of the certificate to show to the registry")
	to.StringVar(&f.clientKey, "client-key", "", "`file` of its key, if it is not in the same file")
	to.BoolVar(&f.insecure, "insecure-skip-verify", false, "do not look at the registry's certificate")
	to.DurationVar(&f.timeout, "timeout", 0, "how `long` to wait for a registry that makes no progress (default 30s, 1m for reads of a mount)")
	to.Var(&f.schema, "schema", "ask only for manifests of Docker `schema` 1, or for any but these with 2")
	to.StringArrayVar(&f.foreign, "foreign-layers", nil, "`host` (host:port, *.domain, *) that layers may be read from by the URLs of their descriptors; patterns allow no private addresses (can be repeated)")
	to.Var(&f.requestRate, "request-rate", "`requests` a second that a host is sent at most (default 200)")
}

// rateFlag is remote.Options.RequestRate on the command line.
type rateFlag int

func (r *rateFlag) Type() string { return "requests" }

func (r *rateFlag) String() string {
	if *r == 0 {
		return ""
	}
	return strconv.Itoa(int(*r))
}

func (r *rateFlag) Set(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no number above 0", v)
	}
	*r = rateFlag(n)
	return nil
}

// schemaFlag is remote.Options.Schema on the command line.
type schemaFlag int

func (s *schemaFlag) Type() string { return "schema" }

func (s *schemaFlag) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.Itoa(int(*s))
}

func (s *schemaFlag) Set(v string) error {
	if v != "1" && v != "2" {
		return fmt.Errorf("%q is neither 1 nor 2", v)
	}
	*s = schemaFlag(v[0] - '0')
	return nil
}

// prepareLogin makes credentials of the flags, before any command runs.
func (a *app) prepareLogin(cmd *cobra.Command, args []string) error {
	if a.passwordStdin && a.username == "" {
		return withRemedy(usagef("--password-stdin without --username"), "say who logs in: --username NAME")
	}
	if a.username != "" && !a.passwordStdin && cmd.Annotations[asksPassword] == "" {
		return withRemedy(usagef("--username without --password-stdin"),
			"write the password to standard input and add --password-stdin, or log in once with: peel login")
	}
	if a.username == "" && a.token == "" || cmd.Annotations[asksPassword] != "" {
		return nil
	}
	if a.username != "" && a.token != "" {
		return withRemedy(usagef("--username and --token"), "a token needs no user name; give one of the two")
	}
	login := &remote.Credentials{Username: a.username, Token: a.token}
	if login.Registry = firstRegistry(args); login.Registry == "" {
		return nil
	}
	if a.passwordStdin {
		var err error
		if login.Password, err = a.readPassword(); err != nil {
			return err
		}
	}
	a.login = login
	return nil
}

// asksPassword marks commands that deal with the login themselves.
const asksPassword = "asks-password"

// firstRegistry is the registry of the first argument that names an image in
// one. Others never see the credentials of the command line.
func firstRegistry(args []string) string {
	for _, arg := range args {
		image, _, _ := manifest.SplitPath(arg)
		if ref, err := manifest.ParseReference(image); err == nil && ref.Transport() == "" {
			return reference.Domain(ref.Named())
		}
	}
	return ""
}

// readPassword reads standard input to its end; one line end is no part of the
// password.
func (a *app) readPassword() (string, error) {
	if a.in == nil {
		return "", usagef("--password-stdin: there is no standard input")
	}
	raw, err := io.ReadAll(io.LimitReader(a.in, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	if len(raw) > maxSecret {
		return "", usagef("the password has more than %d bytes", maxSecret)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if password == "" {
		return "", usagef("the password on standard input is empty")
	}
	return password, nil
}

// client makes a client of registries.
func (a *app) client(log *logrus.Entry) (*remote.Client, error) {
	state, err := a.cacheDir()
	if err != nil {
		return nil, err
	}
	return remote.New(remote.Options{
		PlainHTTP: a.plainHTTP, HostsDir: a.hostsDir, UserAgent: "peel/" + buildVersion().Version, Log: log,
		Credentials: a.login, CAs: a.cas, ClientCert: a.clientCert, ClientKey: a.clientKey, InsecureSkipVerify: a.insecure,
		Timeout: a.timeout, Schema: int(a.schema), ForeignHosts: a.foreign, StateDir: filepath.Join(state, "hosts"),
		RequestRate: int(a.requestRate),
	})
}

// args are the flags for a process that asks the same registries from another
// folder: all but the secrets, which other users could read there.
func (f *clientFlags) args() ([]string, error) {
	var args []string
	type file struct{ name, value string }
	files := []file{{"hosts-dir", f.hostsDir}, {"client-cert", f.clientCert}, {"client-key", f.clientKey}}
	for _, ca := range f.cas {
		files = append(files, file{"ca", ca})
	}
	for _, x := range files {
		if x.value == "" {
			continue
		}
		abs, err := filepath.Abs(x.value)
		if err != nil {
			return nil, usagef("--%s: %w", x.name, err)
		}
		args = append(args, "--"+x.name+"="+abs)
	}
	if f.plainHTTP {
		args = append(args, "--plain-http")
	}
	if f.insecure {
		args = append(args, "--insecure-skip-verify")
	}
	if f.timeout > 0 {
		args = append(args, "--timeout="+f.timeout.String())
	}
	if f.schema != 0 {
		args = append(args, "--schema="+f.schema.String())
	}
	if f.requestRate != 0 {
		args = append(args, "--request-rate="+f.requestRate.String())
	}
	for _, host := range f.foreign {
		args = append(args, "--foreign-layers="+host)
	}
	return args, nil
}

// secrets are what goes to such a process by another way: one line of JSON.
type secrets struct {
	Login *remote.Credentials `json:"login"`
}

func (f *clientFlags) sendSecrets(w io.Writer) error {
	return json.NewEncoder(w).Encode(secrets{f.login})
}

// receiveSecrets reads that line, and nothing behind it.
func (f *clientFlags) receiveSecrets(r io.Reader) error {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if b[0] == '\n' {
			break
		}
		if line = append(line, b[0]); len(line) > 4*maxSecret {
			return errors.New("line too long")
		}
	}
	var s secrets
	if err := json.Unmarshal(line, &s); err != nil {
		return err
	}
	f.login = s.Login
	return nil
}
