package remote

import "context"

// Login asks the registry of domain whether it takes the credentials.
func (c *Client) Login(ctx context.Context, domain string, cr Credentials) error {
	return c.Ping(ctx, domain)
}
