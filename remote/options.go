package remote

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/sirupsen/logrus"
)

// DefaultHostsDir is where containerd looks for the hosts of a registry.
const DefaultHostsDir = "/etc/containerd/certs.d"

// Options say how registries are asked. The zero value is usable.
type Options struct {
	// PlainHTTP asks every registry over plain HTTP unless its hosts.toml says
	// otherwise. Loopback registries are asked so in any case, but on port 443
	// and where CAs, ClientCert or InsecureSkipVerify speak of TLS.
	PlainHTTP bool
	// HostsDir holds a folder with a hosts.toml, or with certificates, per
	// registry. Empty means DefaultHostsDir, if it is there and readable.
	HostsDir string
	// UserAgent is sent with every request; "peel" if empty.
	UserAgent string
	// Keychain gives credentials, asked anew for every token. The default
	// reads the files of docker and podman and runs credential helpers.
	Keychain authn.Keychain
	Retry    Retry
	// Credentials beat the keychain, for the registry they are for; mirrors and
	// redirects never get them. Nil: there are none but the keychain's.
	Credentials *Credentials
	// CAs are files of PEM certificates that are trusted as well as the
	// system's. ClientCert and ClientKey are a file of each, or neither. All
	// three, and InsecureSkipVerify, are for a registry's own host and where it
	// leads, as far as its hosts.toml does not say something else.
	CAs                   []string
	ClientCert, ClientKey string
	InsecureSkipVerify    bool // TLS certificates are not looked at
	// Timeout is how long an operation waits without progress. Zero leaves that
	// to Retry.
	Timeout time.Duration
	// Schema says which manifests are asked for: 1, those of Docker schema 1
	// only; 2, those of schema 2 and of OCI only; 0, schema 1 if there is
	// nothing else.
	Schema int
	// ForeignHosts are hosts that layers may be read from by the urls of their
	// descriptors: "host" or "host:port", "*.domain" for all hosts below a
	// domain, "*" for any; the latter two allow no private addresses.
	ForeignHosts []string
	// StateDir is a folder that all clients on this machine share, for how
	// long hosts asked them to wait and for requests under way; "" for none.
	StateDir string
	// MaxPerHost bounds the requests under way per host, 16 if zero; those of all
	// clients that share StateDir are bounded by twice as many.
	MaxPerHost int
	// RequestRate bounds the requests a second per host, 200 if zero. As many
	// may be sent at once after a while without any.
	RequestRate int
	// Log gets retries, warnings of registries and failed credential helpers.
	Log *logrus.Entry

	identity identity // of CAs, ClientCert, ClientKey, InsecureSkipVerify
}

// Credentials are what a user says on the command line.
type Credentials struct {
	// Registry is the domain of a reference, docker.io for Docker Hub. Empty
	// means the own host of whatever registry is asked.
	Registry           string
	Username, Password string
	// Token is a bearer token that the registry takes as it is; it beats
	// Username and Password.
	Token string
}

const (
	defaultProgress = 20 * time.Second
	defaultRate     = 200 // requests a second per host
)

func (o Options) withDefaults() (Options, error) {
	if o.HostsDir != "" {
		if err := checkHostsDir(o.HostsDir); err != nil {
			return o, err
		}
	}
	var err error
	if o.identity, err = o.readIdentity(); err != nil {
		return o, err
	}
	if o.Schema < 0 || o.Schema > 2 {
		return o, optionFault("schema", fmt.Errorf("%d is neither 1 nor 2", o.Schema), "")
	}
	if o.Timeout < 0 {
		return o, optionFault("timeout", fmt.Errorf("%v is less than nothing", o.Timeout), "")
	}
	if o.UserAgent == "" {
		o.UserAgent = "peel"
	}
	if o.Keychain == nil {
		o.Keychain = DefaultKeychain()
	}
	if o.MaxPerHost <= 0 {
		o.MaxPerHost = 16
	}
	if o.RequestRate < 0 {
		return o, optionFault("request rate", fmt.Errorf("%d is less than nothing", o.RequestRate), "")
	}
	o.RequestRate = cmp.Or(o.RequestRate, defaultRate)
	if o.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		o.Log = logrus.NewEntry(quiet)
	}
	if o.Timeout > 0 {
		o.Retry.Budget = o.Timeout
		o.Retry.Progress = min(cmp.Or(max(o.Retry.Progress, 0), defaultProgress), o.Timeout)
	}
	o.Retry = o.Retry.withDefaults()
	return o, nil
}

func checkHostsDir(dir string) error {
	fi, err := os.Stat(dir)
	if err == nil && fi.IsDir() {
		return nil
	}
	f := &fault{class: ErrUsage, text: "hosts folder " + dir + " is not a folder"}
	// Without the operation and the name once more.
	var pe *fs.PathError
	if errors.As(err, &pe) {
		f.text, f.cause = "hosts folder "+dir, pe.Err
	}
	f.remedy = "--hosts-dir takes a folder with a folder per registry, like " + DefaultHostsDir
	return f
}
