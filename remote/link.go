package remote

import (
	"cmp"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxLinks is how many hosts are remembered; redirects may name any number.
	maxLinks = 256
	// roundTrips is how many of the last answers a host's round trip is the
	// median of.
	roundTrips = 32
	// What a host may be asked besides is one request in so many, and no more
	// than maxSaved at a time.
	requestsPerHedge = 50
	maxSaved         = 2
)

// HostLink is what is known of the line to one host.
type HostLink struct {
	Host      string        // as in a URL
	RoundTrip time.Duration // from request to first byte, median of late; 0: unknown
	Bandwidth int64         // of all bodies together, bytes a second; 0: unknown
	Requests  int64         // sent to it, but for tokens
	Hedges    int64         // of these, sent because another was late
}

// Links returns what is known of the hosts asked so far, by name.
func (c *Client) Links() []HostLink { return c.limiter.links.all() }

// Link returns what is known of the line to the host that served the blob last;
// before that, of the one that will probably. The bandwidth is in bytes a
// second, that of all readers together; zero means unknown.
func (b *Blob) Link() (roundTrip time.Duration, bandwidth int64) {
	l := b.served.Load()
	if l == nil {
		l = b.client.likely(b.domain())
	}
	if l == nil {
		return 0, 0
	}
	return l.trips.median(), l.flow.rate()
}

// likely is the link to the host that serves blobs of domain, as far as is
// known without asking anybody; nil if nothing is.
func (c *Client) likely(domain string) *link {
	c.mu.Lock()
	r := c.registries[domain]
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	hosts := r.candidates(pull)
	if len(hosts) == 0 {
		return nil
	}
	if l := hosts[0].serving.Load(); l != nil {
		return l
	}
	return c.limiter.links.known(hosts[0].base)
}

// links are those to the hosts asked lately.
type links struct {
	perSecond int // requests per host

	mu     sync.Mutex // guards byHost and the links' used
	byHost map[string]*link
}

func newLinks(perSecond int) *links {
	return &links{perSecond: perSecond, byHost: map[string]*link{}}
}

// of returns the link to host.
func (s *links) of(host string) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byHost[host]
	if l == nil {
		if len(s.byHost) >= maxLinks {
			s.dropOldestLocked()
		}
		l = &link{host: host, rate: rate.NewLimiter(rate.Limit(s.perSecond), s.perSecond)}
		s.byHost[host] = l
	}
	l.used = time.Now()
	return l
}

func (s *links) dropOldestLocked() {
	var oldest *link
	for _, l := range s.byHost {
		if oldest == nil || l.used.Before(oldest.used) {
			oldest = l
		}
	}
	delete(s.byHost, oldest.host)
}

func (s *links) known(u *url.URL) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byHost[u.Host]
}

func (s *links) all() []HostLink {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]HostLink, 0, len(s.byHost))
	for _, l := range s.byHost {
		out = append(out, HostLink{
			Host: l.host, RoundTrip: l.trips.median(), Bandwidth: l.flow.rate(),
			Requests: l.requests.Load(), Hedges: l.hedges.Load(),
		})
	}
	slices.SortFunc(out, func(a, b HostLink) int { return cmp.Compare(a.Host, b.Host) })
	return out
}

// link is the line to one host.
type link struct {
	host     string
	rate     *rate.Limiter
	trips    trips
	flow     flow
	allowed  allowance
	requests atomic.Int64
	hedges   atomic.Int64
	shared   atomic.Bool // its connections carry many requests at a time
	used     time.Time   // guarded by links.mu
	demand   time.Time   // when the last of this class ended; guarded by limiter.mu
}

// trips are the round trips of the last answers.
type trips struct {
	mu   sync.Mutex // guards ring and n
	ring [roundTrips]time.Duration
	n    int

	mid   atomic.Int64 // the median, nanoseconds; 0: unknown
	count atomic.Int64 // of the samples it is made of
}

func (t *trips) add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ring[t.n%roundTrips] = max(d, 1)
	if t.n++; t.n > roundTrips && t.n%4 != 0 {
		return // one changes little
	}
	sorted := t.ring
	known := sorted[:min(t.n, roundTrips)]
	slices.Sort(known)
	t.mid.Store(int64(known[len(known)/2]))
	t.count.Store(int64(len(known)))
}

// median is zero if nothing is known.
func (t *trips) median() time.Duration { return time.Duration(t.mid.Load()) }

// allowance is what may be asked besides.
type allowance struct {
	mu    sync.Mutex // guards saved
	saved int        // requests sent, less requestsPerHedge for each hedge
}

// earn notes a request.
func (a *allowance) earn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.saved = min(a.saved+1, maxSaved*requestsPerHedge)
}

// spend takes what one hedge costs, if that is there.
func (a *allowance) spend() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.saved < requestsPerHedge {
		return false
	}
	a.saved -= requestsPerHedge
	return true
}

// enough reports whether spend would succeed.
func (a *allowance) enough() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.saved >= requestsPerHedge
}
