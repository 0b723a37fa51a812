package remote

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Client asks registries. See the package's documentation.
type Client struct {
	o       Options
	tally   tally
	gate    *gate
	limiter *limiter

	foreignHosts  foreignHosts
	foreignClient *http.Client

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
	g := newGate(o)
	c := &Client{
		o:          o,
		gate:       g,
		limiter:    newLimiter(o, g),
		registries: map[string]*registry{},
		warned:     map[string]bool{},
	}
	if c.foreignHosts, err = newForeignHosts(o.ForeignHosts); err != nil {
		return nil, err
	}
	if c.foreignClient, err = c.newForeignClient(); err != nil {
		return nil, err
	}
	return c, nil
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
	c.foreignClient.CloseIdleConnections()
	c.gate.close()
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
	return c.insist(ctx, q, p, func(r *registry) error {
		return c.round(ctx, choice{r.domain, r.candidates(q.need), r.endpoints}, func(e *endpoint) error { return f(e, p) })
	})
}

// insist calls round with the registry's hosts, again while the error is worth
// it.
func (c *Client) insist(ctx context.Context, q asking, p *pace, round func(*registry) error) error {
	for {
		r, err := c.registry(ctx, q.domain)
		if err != nil {
			return err
		}
		if err = round(r); err == nil {
			return nil
		}
		if q.need&push == 0 {
			err = p.doubt(err)
		}
		if again := p.pause(ctx, err); again != nil {
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

// choice are the hosts to ask, in this order, and all there are, in the order
// of what their word is worth: the origin comes after its mirrors.
type choice struct {
	domain    string
	hosts     []*endpoint
	authority []*endpoint
}

// round asks each host once. The error is that of the last of the authorities,
// which is the origin; the others' words are added to it.
func (c *Client) round(ctx context.Context, ch choice, f func(*endpoint) error) error {
	failures := map[*endpoint]error{}
	for _, e := range ch.hosts {
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
	return ch.sum(failures)
}

// sum makes one error of the hosts'.
func (ch choice) sum(failures map[*endpoint]error) error {
	var final error
	var others []string
	soonest := time.Duration(math.MaxInt64)
	origin := true
	for _, e := range ch.authority {
		err := failures[e]
		var f *fault
		switch {
		case err == nil:
			continue
		case errors.As(err, &f) && f.again:
			soonest = min(soonest, f.after)
		case e.foreign() && transient(final):
			others = append(others, err.Error())
			continue
		}
		if final != nil {
			others = append(others, final.Error())
		}
		final, origin = err, !e.foreign()
	}
	var f *fault
	switch {
	case final == nil:
		return &fault{class: ErrUsage, text: "no host of registry " + ch.domain + " may be asked for this", remedy: "see its hosts.toml"}
	case len(others) == 0 || !errors.As(final, &f):
		return final
	}
	with := *f
	if with.again {
		with.after = soonest // of whoever wants to be asked again first
	}
	with.text = strings.Join(others, "; ") + "; " + f.text
	if origin {
		with.text = "mirrors: " + strings.Join(others, "; ") + "; origin: " + f.text
	}
	return &with
}

// boundary names the object in an error and notes it for Stats.
func (c *Client) boundary(domain, object string, err error) error {
	err = fmt.Errorf("%s: %w", object, advise(domain, err))
	c.tally.failed(domain, err)
	return err
}

// maxWarned bounds the registry warnings that are remembered as shown.
const maxWarned = 100

// printable is the beginning of what a registry says, without what a terminal
// would obey.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxErrorText)], "")
}

// warn logs a registry's warnings (OCI distribution specification, "Warnings";
// RFC 9111 section 5.5), each once.
func (c *Client) warn(host string, h http.Header) {
	for _, w := range h.Values("Warning") {
		text, ok := strings.CutPrefix(w, "299 - ")
		if !ok {
			continue
		}
		text = printable(text)
		key := host + " " + text
		c.mu.Lock()
		known := c.warned[key] || len(c.warned) >= maxWarned
		if !known {
			c.warned[key] = true
		}
		c.mu.Unlock()
		if !known {
			c.o.Log.WithField("registry", host).Warnf("registry warns: %s", text)
		}
	}
}
