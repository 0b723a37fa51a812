package remote

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxForeign is how many URLs of a descriptor are looked at.
const maxForeign = 16

// foreignHosts are the hosts that layers may be read from by the urls of their
// descriptors (OCI image specification, "Descriptors"): host, host:port,
// *.domain, *.
type foreignHosts []string

func newForeignHosts(list []string) (foreignHosts, error) {
	var hosts foreignHosts
	for _, s := range list {
		h := strings.ToLower(s)
		name := strings.TrimPrefix(h, "*.")
		u, err := url.Parse("https://" + name)
		if h != "*" && (err != nil || u.Host != name || u.Hostname() == "" || strings.Contains(name, "*")) {
			return nil, &fault{
				class: ErrUsage, text: fmt.Sprintf("foreign layers: %.100q is no host", s),
				remedy: `--foreign-layers takes "host" or "host:port", "*.domain", or "*" for any host`,
			}
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// permit is what foreignHosts say of a URL.
type permit int

const (
	forbidden permit = iota
	anyPublic        // by a pattern: not in a private network
	byName           // wherever it is
)

func (hosts foreignHosts) permit(u *url.URL) permit {
	best := forbidden
	for _, h := range hosts {
		domain, below := strings.CutPrefix(h, "*.")
		switch {
		case h == "*", below && domainOf(u, domain):
			best = max(best, anyPublic)
		case !below && hostPort(u) == hostPort(&url.URL{Scheme: u.Scheme, Host: h}):
			best = byName
		}
	}
	return best
}

// domainOf reports whether u's host lies below domain, which may have a port.
func domainOf(u *url.URL, domain string) bool {
	d := &url.URL{Scheme: u.Scheme, Host: domain}
	name := strings.ToLower(u.Hostname())
	return strings.HasSuffix(name, "."+d.Hostname()) && cmp.Or(u.Port(), defaultPort(u)) == cmp.Or(d.Port(), defaultPort(u))
}

func defaultPort(u *url.URL) string {
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}

// foreignURLs are the usable ones of a descriptor's, without what they may hold
// of secrets for whoever wrote them.
func foreignURLs(list []string) []*url.URL {
	var out []*url.URL
	for _, s := range list[:min(len(list), maxForeign)] {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" {
			continue
		}
		u.User, u.Fragment, u.RawFragment = nil, "", ""
		out = append(out, u)
	}
	return out
}

// foreign is where else a blob lies.
type foreign struct {
	endpoints []*endpoint // of the URLs that may be asked, whose bases are the URLs
	permits   map[*endpoint]permit
	others    []string // hosts that may not be asked
}

// foreign reports whether e is the host of a descriptor's URL.
func (e *endpoint) foreign() bool { return e.authorities == nil }

// elsewhere returns where d lies besides its registry.
func (c *Client) elsewhere(d ocispec.Descriptor) foreign {
	f := foreign{permits: map[*endpoint]permit{}}
	for _, u := range foreignURLs(d.URLs) {
		may := c.foreignHosts.permit(u)
		if may == forbidden {
			if !slices.Contains(f.others, u.Host) {
				f.others = append(f.others, u.Host)
			}
			continue
		}
		// Without authorities: nobody logs in there.
		e := &endpoint{base: u, domain: u.Host, mirror: true, capabilities: pull, client: c.foreignClient}
		f.endpoints = append(f.endpoints, e)
		f.permits[e] = may
	}
	return f
}

// missing is the error for a blob that the registry has not got: nobody may be
// asked who has.
func (f foreign) missing(err error) error {
	if len(f.endpoints) > 0 || len(f.others) == 0 {
		return err
	}
	hosts := strings.Join(f.others, ", ")
	return &fault{
		class:  ErrDenied,
		text:   "foreign layer, which the registry has not got; its descriptor says that it lies at " + hosts,
		remedy: "if you trust that host, allow it with --foreign-layers " + f.others[0],
	}
}

// besides adds to the error of a blob that also lies at hosts that may not be
// asked how to allow them.
func (f foreign) besides(err error) error {
	var why *fault
	if len(f.endpoints) == 0 || len(f.others) == 0 || !errors.As(err, &why) || errors.Is(why.class, ErrUsage) {
		return err
	}
	with := *why
	with.remedy = fmt.Sprintf("the layer also lies at %s; if you trust that host, allow it with --foreign-layers %s",
		strings.Join(f.others, ", "), f.others[0])
	if why.remedy != "" {
		with.remedy = why.remedy + "; " + with.remedy
	}
	return &with
}

// insideForeign is the error for a host in a private network that only a
// pattern allows, of which whoever wrote the descriptor may have thought.
func insideForeign(host string, e insideError) *fault {
	return &fault{
		class:  ErrAnswer,
		text:   fmt.Sprintf("%s, a foreign layer's host, has the private address %s, which patterns of --foreign-layers do not allow", host, e.addr),
		remedy: "if you trust that host, name it: --foreign-layers " + host,
	}
}

// newForeignClient makes connections without any registry's settings.
func (c *Client) newForeignClient() (*http.Client, error) {
	hc := &http.Client{Transport: docker.DefaultHTTPTransport(&tls.Config{MinVersion: tls.VersionTLS12})}
	err := c.tune(&registry{tuned: map[*http.Client]*http.Transport{}}, hc)
	return hc, err
}
