package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

const (
	maxTagPages = 10_000
	maxTags     = 1_000_000
)

// Tags lists the tags of a repository, in the order in which the registry
// tells them, page by page (OCI distribution specification, "Listing Tags").
// Mirrors know only some of them: they are asked if the registry cannot be
// reached.
func (c *Client) Tags(ctx context.Context, repo reference.Named) ([]string, error) {
	var tags []string
	from := func(e *endpoint, p *pace) (err error) {
		tags, err = c.tagsFrom(ctx, e, reference.Path(repo), p)
		return err
	}
	q := asking{reference.Domain(repo), pull | docker.HostCapabilityResolve}
	err := c.atOrigin(ctx, q.domain, from)
	if errors.Is(err, ErrUnreachable) && ctx.Err() == nil && c.mirrored(ctx, q) {
		c.o.Log.WithField("registry", q.domain).WithError(err).Warn("tags from a mirror, which may not know all")
		err = c.attempt(ctx, q, newPace(c.o.Retry), from)
	}
	if err != nil {
		return nil, c.boundary(q.domain, "tags of "+repo.Name(), err)
	}
	return tags, nil
}

// mirrored reports whether there is more than one host to ask.
func (c *Client) mirrored(ctx context.Context, q asking) bool {
	r, err := c.registry(ctx, q.domain)
	return err == nil && len(r.candidates(q.need)) > 1
}

func (c *Client) tagsFrom(ctx context.Context, e *endpoint, repo string, p *pace) ([]string, error) {
	var tags []string
	// How long pages are is left to the registry: some refuse what is more than
	// they like.
	at := e.url(repo, "tags", "list")
	for range maxTagPages {
		page, next, err := c.tagsPage(ctx, request{endpoint: e, grant: pulling(repo), url: at}, p)
		if err != nil {
			return nil, err
		}
		tags = append(tags, page...)
		switch {
		case next == nil:
			return tags, nil
		case *next == *at:
			return nil, &fault{class: ErrAnswer, text: e.base.Host + " sends from a page of tags to the same one"}
		case len(tags) > maxTags:
			return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s has more than %d tags", e.base.Host, maxTags)}
		}
		at = next
	}
	return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s has more than %d pages of tags", e.base.Host, maxTagPages)}
}

// tagsPage reads a page, and where the next one is.
func (c *Client) tagsPage(ctx context.Context, r request, p *pace) ([]string, *url.URL, error) {
	host := r.endpoint.base.Host
	a, err := c.do(ctx, r, p)
	if err != nil {
		return nil, nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		f := statusFault(host, r.endpoint.login(), a.Response)
		if f.class == ErrNotFound { //nolint:errorlint // it is the field itself
			f.remedy = "check the name of the repository"
		}
		return nil, nil, f
	}
	raw, err := readBounded(host, a)
	if err != nil {
		return nil, nil, err
	}
	var doc struct{ Tags []string }
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, nil, &fault{class: ErrAnswer, text: host + " sends a list of tags that is not JSON"}
	}
	target := nextPage(a.Header)
	if target == "" {
		return doc.Tags, nil, nil
	}
	next, err := follow(a.url, a.peer, target)
	if err != nil {
		return nil, nil, err
	}
	r.endpoint.tell(next)
	return doc.Tags, next, nil
}
