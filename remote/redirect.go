package remote

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

const (
	maxHops = 10
	// A signed URL is not used in its last seconds, so that it does not end
	// on the way: this many, or a quarter of its life if that is less.
	expiryMargin = 10 * time.Second
	// Lifetimes beyond this are taken for it; no signer grants longer ones.
	maxLifetime = 30 * 24 * time.Hour
)

// location is where a redirect led.
type location struct {
	from    *endpoint
	url     *url.URL
	guarded bool
	until   time.Time // zero: for ever, as far as is known
}

func newLocation(from *endpoint, a *answer, now time.Time) *location {
	l := &location{from: from, url: a.url, guarded: a.guarded}
	// One that has ended already is of a host whose clock is not ours. It is
	// used until it is refused.
	if expires := expiry(a.url); expires.After(now) {
		l.until = expires.Add(-min(expiryMargin, expires.Sub(now)/4))
	}
	return l
}

func (l *location) usable(now time.Time) bool { return l.until.IsZero() || now.Before(l.until) }

// expiry reads when a signed URL ends, zero if it does not tell:
// X-Amz-Date and X-Amz-Expires (S3 V4), X-Goog-… (GCS V4), Expires in Unix
// seconds (S3 V2, GCS V2, CloudFront), se (Azure shared access signature).
func expiry(u *url.URL) time.Time {
	q := u.Query()
	for _, prefix := range []string{"X-Amz-", "X-Goog-"} {
		at, err := time.Parse("20060102T150405Z", q.Get(prefix+"Date"))
		if err != nil {
			continue
		}
		sec, err := strconv.ParseUint(q.Get(prefix+"Expires"), 10, 31)
		if err == nil {
			return at.Add(min(time.Duration(sec)*time.Second, maxLifetime))
		}
	}
	if sec, err := strconv.ParseInt(q.Get("Expires"), 10, 64); err == nil && sec > 0 {
		return time.Unix(sec, 0)
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly} {
		if at, err := time.Parse(layout, q.Get("se")); err == nil {
			return at
		}
	}
	return time.Time{}
}

// isRedirect: RFC 9110 section 15.4, the ones with a target for a GET.
func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// public reports whether a host answered that is not of a private network, as
// far as its name and its address tell. peer is invalid behind a proxy.
func public(at *url.URL, peer netip.Addr) bool {
	return !private(at.Hostname()) && !(peer.IsValid() && privateIP(peer))
}

// follow is the URL that an answer from at, given by peer, redirects to.
func follow(at *url.URL, peer netip.Addr, target string) (*url.URL, error) {
	to, err := at.Parse(target)
	if err != nil || target == "" {
		return nil, &fault{class: ErrAnswer, text: at.Host + " redirects to an unreadable address"}
	}
	if to.Scheme != "http" && to.Scheme != "https" || to.Hostname() == "" {
		return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s redirects to %s", at.Host, redact(to))}
	}
	if private(to.Hostname()) && public(at, peer) {
		return nil, &fault{class: ErrAnswer, text: fmt.Sprintf("%s is public and redirects into a private network (%s); refused", at.Host, redact(to))}
	}
	return to, nil
}

// redact is u without what may be secret: user, query, fragment.
func redact(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
