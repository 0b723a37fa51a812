package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Client asks registries. See the package's documentation.
type Client struct {
	o       Options
	tally   tally
	limiter *limiter

	mu         sync.Mutex // guards registries and warned
	registries map[string]*registry
	warned     map[string]bool
}

// New makes a client; it asks nobody yet.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{
		o:          o,
		limiter:    newLimiter(o.MaxPerHost, newGate(o)),
		registries: map[string]*registry{},
		warned:     map[string]bool{},
	}, nil
}

// Close closes the connections that are not in use. Readers must have been
// closed before.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.registries {
		r.closeIdle()
		for _, e := range r.endpoints {
			e.client.CloseIdleConnections()
		}
	}
	c.limiter.gate.close()
}

// Stats returns the totals so far.
func (c *Client) Stats() Stats { return c.tally.stats() }

// Ping asks once whether the registry of domain, a reference's first part,
// answers at all: with success, or with the wish for a login (OCI
// distribution specification, end-1).
func (c *Client) Ping(ctx context.Context, domain string) error {
	once := c.o.Retry
	once.Attempts = 1
	err := c.attempt(ctx, asking{domain, pull}, newPace(once), func(e *endpoint, p *pace) error {
		u := e.url()
		u.Path += "/"
		a, err := c.do(ctx, request{endpoint: e, url: u}, p)
		if err != nil {
			return err
		}
		defer a.Body.Close()
		if a.StatusCode == http.StatusOK || a.StatusCode == http.StatusUnauthorized {
			return nil
		}
		return statusFault(u.Host, e.login(), a.Response)
	})
	if err != nil {
		return fmt.Errorf("registry %s: %w", domain, err)
	}
	return nil
}

const (
	pull      = docker.HostCapabilityPull
	push      = docker.HostCapabilityPush
	referrers = docker.HostCapabilityResolve | docker.HostCapabilityReferrers
)

// asking is who is asked, and what for.
type asking struct {
	domain string
	need   docker.HostCapabilities
}

// attempt calls f for the hosts that may be asked, one after the other until
// one succeeds, and again while the error is worth it.
func (c *Client) attempt(ctx context.Context, q asking, p *pace, f func(*endpoint, *pace) error) error {
	for {
		r, err := c.registry(ctx, q.domain)
		if err != nil {
			return err
		}
		if err = c.round(ctx, r, q.need, func(e *endpoint) error { return f(e, p) }); err == nil {
			return nil
		}
		if q.need&push == 0 {
			err = p.doubt(err)
		}
		again := p.pause(ctx, err)
		if again != nil {
			if errors.Is(again, ErrUnreachable) {
				c.forget(r)
			}
			return again
		}
		c.retrying(q.domain, err)
	}
}

func (c *Client) retrying(domain string, err error) {
	c.tally.retries.Add(1)
	c.o.Log.WithField("registry", domain).WithError(err).Info("asking again")
}

// round asks each host once. The error is that of the host configured last,
// which is the origin; the others' words are added to it.
func (c *Client) round(ctx context.Context, r *registry, need docker.HostCapabilities, f func(*endpoint) error) error {
	failures := map[*endpoint]error{}
	for _, e := range r.candidates(need) {
		err := f(e)
		if err == nil {
			e.worked()
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if transient(err) {
			e.failed()
		}
		failures[e] = err
	}
	var final error
	var mirrors []string
	for _, e := range r.endpoints {
		if err := failures[e]; err != nil {
			if final != nil {
				mirrors = append(mirrors, final.Error())
			}
			final = err
		}
	}
	if final == nil {
		return &fault{class: ErrUsage, text: "no host of registry " + r.domain + " may be asked for this", remedy: "see its hosts.toml"}
	}
	if f := (*fault)(nil); len(mirrors) > 0 && errors.As(final, &f) {
		with := *f
		with.text = "mirrors: " + strings.Join(mirrors, "; ") + "; origin: " + f.text
		return &with
	}
	return final
}

// boundary names the object in an error and notes it for Stats.
func (c *Client) boundary(domain, object string, err error) error {
	err = fmt.Errorf("%s: %w", object, advise(domain, err))
	c.tally.failed(domain, err)
	return err
}

// maxWarned bounds the registry warnings that are remembered as shown.
const maxWarned = 100

// warn logs a registry's warnings (OCI distribution specification, "Warnings";
// RFC 9111 section 5.5), each once.
func (c *Client) warn(host string, h http.Header) {
	for _, w := range h.Values("Warning") {
		key := host + " " + w
		c.mu.Lock()
		known := c.warned[key] || len(c.warned) >= maxWarned
		if !known {
			c.warned[key] = true
		}
		c.mu.Unlock()
		text, ok := strings.CutPrefix(w, "299 - ")
		if ok && !known {
			c.o.Log.WithField("registry", host).Warnf("registry warns: %.300s", text)
		}
	}
}
