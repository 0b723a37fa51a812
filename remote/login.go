package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/google/go-containerregistry/pkg/authn"
)

// Login asks the registry of domain, a reference's first part, whether it takes
// the credentials. Mirrors are not asked. The error is an ErrLogin if it does
// not. A registry that wants no login takes any.
func (c *Client) Login(ctx context.Context, domain string, cr Credentials) error {
	err := c.atOrigin(ctx, domain, func(e *endpoint, p *pace) error {
		if e.mirror {
			return &fault{
				class: ErrUsage, text: "its hosts.toml has " + e.base.Host + " answer for it",
				remedy: "log in there: peel login " + e.login(),
			}
		}
		return c.loginAt(ctx, e, cr, p)
	})
	if err != nil {
		return c.boundary(domain, "registry "+domain, err)
	}
	return nil
}

// atOrigin calls f for the host configured last, again while its error is worth
// it. Mirrors are not asked.
func (c *Client) atOrigin(ctx context.Context, domain string, f func(*endpoint, *pace) error) error {
	p := newPace(c.o.Retry)
	return c.insist(ctx, asking{domain, pull}, p, func(r *registry) error { return f(r.endpoints[len(r.endpoints)-1], p) })
}

// loginAt asks for the API's root (OCI distribution specification, end-1)
// without a login and, if there is a challenge, with one.
func (c *Client) loginAt(ctx context.Context, e *endpoint, cr Credentials, p *pace) error {
	root := request{endpoint: e, url: e.url()}
	root.url.Path += "/"
	first, err := c.do(ctx, root, p)
	if err != nil {
		return err
	}
	challenges := auth.ParseAuthHeader(first.Header)
	status := statusFault(root.url.Host, e.login(), first.Response)
	first.Body.Close() //nolint:errcheck // read as far as it is of use
	switch {
	case first.StatusCode == http.StatusOK:
		return nil
	case first.StatusCode == http.StatusNotFound:
		status.text, status.remedy = e.base.Host+" does not answer as a registry", "check the name and the port"
		return status
	case first.StatusCode != http.StatusUnauthorized || len(challenges) == 0:
		return status
	}
	authorization, err := c.present(root.forToken(ctx), e, challenges, cr, p)
	if err != nil {
		return err
	}
	h := root.hop(root.url, authorization)
	second, err := c.send(ctx, h, p)
	if err != nil {
		return err
	}
	defer second.Body.Close()
	switch second.StatusCode {
	case http.StatusOK, http.StatusForbidden: // known, though not let in here
		return nil
	case http.StatusUnauthorized:
		return c.refused(e, message(second.Body))
	}
	return statusFault(root.url.Host, e.login(), second.Response)
}

// present answers the challenge with the credentials.
func (c *Client) present(ctx context.Context, e *endpoint, challenges []auth.Challenge, cr Credentials, p *pace) (string, error) {
	creds := &authn.AuthConfig{Username: cr.Username, Password: cr.Password, RegistryToken: cr.Token}
	value, _, err := c.answer(ctx, &authority{endpoint: e}, challenges, creds, p)
	var f *fault
	if errors.Is(err, ErrLogin) && errors.As(err, &f) {
		return "", c.refused(e, f.cause)
	}
	return value, err
}

func (c *Client) refused(e *endpoint, cause error) error {
	return &fault{
		class: ErrLogin, cause: cause, text: fmt.Sprintf("%s does not take this user name and password", e.base.Host),
		remedy: "check both; many registries want an access token in place of the password",
	}
}
