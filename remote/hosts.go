package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

const (
	// A host that failed is asked after its mirrors for this long.
	penalty = 30 * time.Second
	// A host that ignored Range is not asked for far ranges for this long. Not
	// for ever: caches do so only until they hold the blob.
	rangePenalty = time.Minute
	// An HTTP/2 connection that was silent for this long is pinged, and closed
	// if no answer comes in as long again. Else a request that the watchdog
	// gave up would be retried on the same dead connection.
	pingAfter = 10 * time.Second
	// How often it is looked whether a registry's configuration has changed.
	configAge = 10 * time.Second
	// A mount is read now and then; a new connection costs two round trips.
	idleAfter = 90 * time.Second
	maxHeader = 256 << 10 // bytes of an answer's header
)

// registry is what a reference's domain stands for: the mirrors in order, then
// the origin.
type registry struct {
	domain     string
	endpoints  []*endpoint
	transports []*http.Transport
	tuned      map[*http.Client]*http.Transport

	stamp   string    // of the configuration that was read
	checked time.Time // when stamp was compared last; guarded by Client.mu
}

func (r *registry) closeIdle() {
	for _, t := range r.transports {
		t.CloseIdleConnections()
	}
}

// candidates are the endpoints that may do need, the ones that failed lately
// last, otherwise in the order configured.
func (r *registry) candidates(need docker.HostCapabilities) []*endpoint {
	var up, down []*endpoint
	now := time.Now().UnixNano()
	for _, e := range r.endpoints {
		switch {
		case !e.may(need):
		case e.downUntil.Load() > now:
			down = append(down, e)
		default:
			up = append(up, e)
		}
	}
	return append(up, down...)
}

// endpoint is one host that is asked for a registry's content.
type endpoint struct {
	base         *url.URL // up to and including /v2
	domain       string   // the reference's
	mirror       bool     // not the domain's own host
	origin       bool     // the host configured last, which alone is pushed to
	capabilities docker.HostCapabilities
	header       http.Header // secrets, maybe: for this host only
	client       *http.Client

	downUntil    atomic.Int64         // Unix nanoseconds
	rangelessTil atomic.Int64         // Unix nanoseconds
	direct       atomic.Bool          // serves blobs itself, without redirect
	noReferrers  atomic.Bool          // has no referrers API
	public       atomic.Bool          // answered from a public address
	serving      atomic.Pointer[link] // to where it, or who it leads to, served a blob last

	mu          sync.Mutex // guards authorities
	authorities map[grant]*authority
}

// may reports whether the endpoint may be asked for all of need. A mirror is
// never pushed to. The origin may always be asked for referrers, which older
// configurations do not know of.
func (e *endpoint) may(need docker.HostCapabilities) bool {
	if e.origin {
		need &^= docker.HostCapabilityReferrers
	}
	return e.capabilities.Has(need) && (e.origin || need&push == 0)
}

func (e *endpoint) failed()    { e.downUntil.Store(time.Now().Add(penalty).UnixNano()) }
func (e *endpoint) worked()    { e.downUntil.Store(0) }
func (e *endpoint) rangeless() { e.rangelessTil.Store(time.Now().Add(rangePenalty).UnixNano()) }

// url is where a document of repo lies. A mirror is told whose content is
// meant by the query "ns" (OCI distribution specification, "Registry Proxying").
func (e *endpoint) url(elem ...string) *url.URL {
	u := e.base.JoinPath(elem...)
	e.tell(u)
	return u
}

// tell adds to an address of a mirror whose content is meant.
func (e *endpoint) tell(u *url.URL) {
	if q := u.Query(); e.mirror && e.owns(u) && !q.Has("ns") {
		q.Set("ns", e.domain)
		u.RawQuery = q.Encode()
	}
}

// owns reports whether u is of this very host, which alone may see its
// credentials and headers.
func (e *endpoint) owns(u *url.URL) bool {
	return u.Scheme == e.base.Scheme && hostPort(u) == hostPort(e.base)
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// registry returns the hosts of domain, read from its configuration at first
// use and again when that has changed.
func (c *Client) registry(ctx context.Context, domain string) (*registry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.registries[domain]
	if old != nil && c.current(old) {
		return old, nil
	}
	r, err := c.load(ctx, domain)
	switch {
	case err != nil && old != nil:
		c.o.Log.WithError(err).Warn("the changed configuration is not used")
		return old, nil
	case err != nil:
		return nil, err
	case old != nil:
		old.closeIdle()
	}
	c.registries[domain] = r
	return r, nil
}

// current reports whether the configuration of r is still that on disk, as far
// as was looked lately. The caller holds c.mu.
func (c *Client) current(r *registry) bool {
	if time.Since(r.checked) < configAge {
		return true
	}
	r.checked = time.Now()
	dir, err := c.hostDir(r.domain)
	return err != nil && !errdefs.IsNotFound(err) || stamp(dir) == r.stamp
}

// stamp tells one state of a registry's folder from others.
func stamp(dir string) string {
	if dir == "" {
		return ""
	}
	s := dir
	for _, name := range []string{dir, filepath.Join(dir, hostsFileName)} {
		if fi, err := os.Stat(name); err == nil {
			s += fmt.Sprintf(" %d %d", fi.ModTime().UnixNano(), fi.Size())
		}
	}
	return s
}

// forget makes the next use of a registry read its configuration again.
func (c *Client) forget(r *registry) {
	c.mu.Lock()
	if c.registries[r.domain] == r {
		delete(c.registries, r.domain)
	}
	c.mu.Unlock()
	r.closeIdle()
}

func (c *Client) load(ctx context.Context, domain string) (*registry, error) {
	r := &registry{domain: domain, tuned: map[*http.Client]*http.Transport{}}
	hosts, file, err := c.configured(ctx, r)
	if err != nil {
		return nil, &fault{class: ErrUsage, text: "configuration of registry " + domain, cause: err, remedy: "see --hosts-dir"}
	}
	for i, h := range hosts {
		e := &endpoint{
			base:         &url.URL{Scheme: h.Scheme, Host: h.Host, Path: h.Path},
			domain:       domain,
			mirror:       h.Host != domain && !(domain == "docker.io" && h.Host == "registry-1.docker.io"),
			origin:       i == len(hosts)-1,
			capabilities: h.Capabilities,
			header:       h.Header,
			client:       h.Client,
			authorities:  map[grant]*authority{},
		}
		if err := checkBase(e.base); err != nil {
			return nil, &fault{class: ErrUsage, text: "registry " + domain, cause: err}
		}
		if err := c.fit(r, e, file.of(e)); err != nil {
			return nil, &fault{class: ErrUsage, text: "registry " + domain + ": host " + e.base.Host, cause: err, remedy: "see --hosts-dir"}
		}
		c.confine(r, e)
		r.endpoints = append(r.endpoints, e)
	}
	return r, nil
}

// configured are the hosts of a registry, and what its file says besides.
func (c *Client) configured(ctx context.Context, r *registry) ([]docker.RegistryHost, *hostsFile, error) {
	dir, err := c.hostDir(r.domain)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, nil, err
	}
	r.stamp, r.checked = stamp(dir), time.Now()
	file, err := readHostsFile(dir)
	if err != nil {
		return nil, nil, err
	}
	o := config.HostOptions{
		HostDir:      func(string) (string, error) { return dir, nil },
		UpdateClient: func(hc *http.Client) error { return c.tune(r, hc) },
	}
	switch {
	case c.o.PlainHTTP:
		o.DefaultScheme = "http"
	case !c.o.identity.empty():
		o.DefaultScheme = "https" // who speaks of certificates means TLS
	case plainByDefault(r.domain):
		o.DefaultScheme = "http"
	}
	var said complaints
	hosts, err := config.ConfigureHosts(log.WithLogger(ctx, said.log()), o)(r.domain)
	return hosts, file, errors.Join(append(said.errs, err)...)
}

func checkBase(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("scheme %q", u.Scheme)
	}
	again, err := url.Parse(u.String())
	if err != nil {
		return err
	}
	if again.Host != u.Host || u.Hostname() == "" {
		return fmt.Errorf("host %q", u.Host)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("port %s, want 1 to %d", port, math.MaxUint16)
		}
	}
	return nil
}

// hostDir finds the folder of one registry below HostsDir. The default one may
// be closed to ordinary users, who then do without.
func (c *Client) hostDir(domain string) (string, error) {
	root := c.o.HostsDir
	if root == "" {
		root = DefaultHostsDir
	}
	dir, err := config.HostDirFromRoot(root)(domain)
	if c.o.HostsDir == "" && errors.Is(err, fs.ErrPermission) {
		c.o.Log.WithError(err).Warn("hosts folder not readable, ignored")
		return "", errdefs.ErrNotFound
	}
	return dir, err
}

// tune makes containerd's HTTP client fit for many parallel ranges. It is
// called for every client made, for those that share a transport again.
func (c *Client) tune(r *registry, hc *http.Client) error {
	if m, done := hc.Transport.(*meter); done {
		r.tuned[hc] = m.next
		return nil
	}
	t, ok := hc.Transport.(*http.Transport)
	if !ok {
		return fmt.Errorf("transport %T", hc.Transport)
	}
	t.MaxIdleConns = 0
	t.IdleConnTimeout = idleAfter
	t.MaxIdleConnsPerHost = c.o.MaxPerHost
	t.DisableCompression = true // ranges count the bytes on the wire
	t.ForceAttemptHTTP2 = true
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter}
	t.OnProxyConnectResponse = connected
	t.ResponseHeaderTimeout = 0 // the watchdog's affair
	t.MaxResponseHeaderBytes = maxHeader
	if !slices.Contains(r.transports, t) {
		r.transports = append(r.transports, t)
	}
	hc.Transport = &meter{next: t, tally: &c.tally, gate: c.gate}
	r.tuned[hc] = t
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return nil
}

// plainByDefault: registries on this machine, as docker has it.
func plainByDefault(domain string) bool {
	host, port := domain, ""
	if h, p, err := net.SplitHostPort(domain); err == nil {
		host, port = h, p
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		return port != "443"
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() && port != "443"
}
