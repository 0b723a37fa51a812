package remote

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

const maxPEM = 16 << 20 // bytes of a file of certificates

// identity is what Options say of TLS, read once.
type identity struct {
	cas        [][]byte // PEM
	client     []tls.Certificate
	skipVerify bool
}

func (o Options) readIdentity() (identity, error) {
	id := identity{skipVerify: o.InsecureSkipVerify}
	for _, name := range o.CAs {
		pem, err := readBoundedFile(name, maxPEM)
		if err != nil {
			return id, optionFault("CA", err, "--ca takes a file of certificates in PEM")
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return id, optionFault("CA", fmt.Errorf("%s holds no certificate in PEM", name), "--ca takes a file of certificates in PEM")
		}
		id.cas = append(id.cas, pem)
	}
	if o.ClientCert == "" && o.ClientKey == "" {
		return id, nil
	}
	const remedy = "--client-cert and --client-key each take a file in PEM, or --client-cert one with both"
	if o.ClientCert == "" {
		return id, &fault{
			class: ErrUsage, text: "--client-key is given, and --client-cert is missing",
			remedy: "--client-cert takes the file of the certificate that the key is of",
		}
	}
	key := o.ClientKey
	if key == "" {
		key = o.ClientCert
	}
	pair, err := tls.LoadX509KeyPair(o.ClientCert, key)
	if err != nil {
		return id, optionFault("client certificate", err, remedy)
	}
	id.client = []tls.Certificate{pair}
	return id, nil
}

func optionFault(what string, err error, remedy string) *fault {
	return &fault{class: ErrUsage, text: what, cause: err, remedy: remedy}
}

func (id identity) empty() bool { return len(id.cas)+len(id.client) == 0 && !id.skipVerify }

// apply adds to a configuration what the registry's table does not say.
func (id identity) apply(c *tls.Config, t hostTable) error {
	if len(id.cas) > 0 {
		pool, err := x509.SystemCertPool()
		if c.RootCAs != nil {
			pool, err = c.RootCAs.Clone(), nil // has the system's, too
		}
		if err != nil {
			return err
		}
		for _, pem := range id.cas {
			pool.AppendCertsFromPEM(pem)
		}
		c.RootCAs = pool
	}
	if t.Client == nil && len(id.client) > 0 {
		c.Certificates = id.client
	}
	if t.SkipVerify == nil && id.skipVerify {
		c.InsecureSkipVerify = true
	}
	return nil
}

// fit gives an endpoint a client of its own where its table, or for the own
// host of the registry the options, ask for it.
func (c *Client) fit(r *registry, e *endpoint, t hostTable) error {
	proxy, err := t.proxy()
	if err != nil {
		return err
	}
	own := e.origin && !c.o.identity.empty()
	if proxy == nil && !own {
		return nil
	}
	shared := r.tuned[e.client]
	if shared == nil {
		return fmt.Errorf("transport %T", e.client.Transport)
	}
	tr := shared.Clone()
	if proxy != nil {
		tr.Proxy = http.ProxyURL(proxy)
	}
	if own {
		if tr.TLSClientConfig == nil {
			tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if err := c.o.identity.apply(tr.TLSClientConfig, t); err != nil {
			return err
		}
	}
	_, metered := e.client.Transport.(*meter)
	hc := *e.client
	hc.Transport = tr
	if err := c.tune(r, &hc); err != nil {
		return err
	}
	if !metered {
		// Plain HTTP with certificates: containerd tries HTTPS first.
		hc.Transport = docker.NewHTTPFallback(hc.Transport)
	}
	e.client = &hc
	return nil
}

// confined lets plain HTTP take the place of HTTPS at one host only, not where
// it redirects to or sends the client for a token, with a password maybe.
type confined struct {
	host        string
	own, others http.RoundTripper
}

func (t *confined) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == t.host {
		return t.own.RoundTrip(req)
	}
	return t.others.RoundTrip(req)
}

// confine does so where containerd, of a host with plain HTTP and certificates,
// tries HTTPS first.
func (c *Client) confine(r *registry, e *endpoint) {
	if _, plain := e.client.Transport.(*meter); plain {
		return
	}
	hc := *e.client
	others := &meter{next: r.tuned[e.client], tally: &c.tally, gate: c.gate}
	hc.Transport = &confined{host: e.base.Host, own: hc.Transport, others: others}
	e.client = &hc
}
