package remote

import (
	"context"

	"github.com/distribution/reference"
)

// Tags lists the tags of a repository in the registry's order.
func (c *Client) Tags(ctx context.Context, repo reference.Named) ([]string, error) {
	return nil, c.boundary(reference.Domain(repo), repo.Name(), &fault{class: ErrNotFound, text: "tags"})
}
