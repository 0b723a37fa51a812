package layer

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/peelfs/peel/internal/priority"
)

// The simulator replays the reads of a trace against a model of a link, in
// virtual time. What to fetch is decided by the functions that Layer calls.
//
// Model: HTTP/1 without pipelining, a few connections. A request costs one round
// trip before its first byte, another on a new connection; responses share the
// bandwidth evenly. Spans are decoded as they come, at decodeRate.

const (
	simConnections = 16        // remote.Options.MaxPerHost
	simPrefetches  = 12        // of them, as package remote does
	simLull        = 1.0       // seconds after a demand in which it expects another one
	decodeRate     = 200 << 20 // bytes of the address space a second
)

// trace is what a workload read.
type trace struct {
	Layers []traceLayer `json:"layers"`
	Reads  []traceRead  `json:"reads"`
	Tail   int64        `json:"tail"` // microseconds that the workload took after the last read
}

type traceLayer struct {
	spans  []Span
	places []place
	heard  map[int][]traceMention // by span that mentions others
}

// traceRead came Think microseconds after read After was answered, -1: after the
// start.
type traceRead struct {
	After      int
	Think      int64 // microseconds
	Layer      int
	Addr, Size int64
}

// policy is what the simulated engine guesses.
type policy int

const (
	policyNone policy = iota
	policyCourse
	policyNeighbours
	policyFull
	policyReplay
)

func (p policy) String() string {
	return [...]string{"none", "sequential", "neighbours", "full", "replay"}[p]
}

// outcomes of a simulation.
type simResult struct {
	took, limit     time.Duration
	requests        int
	bytes, wanted   int64
	guesses, struck int // spans that were guessed, and read
}

func (r simResult) ratio() float64 { return r.took.Seconds() / r.limit.Seconds() }
func (r simResult) waste() float64 { return float64(r.bytes) / float64(max(r.wanted, 1)) }

// simSpan is a span's state in a simulation.
type simSpan struct {
	req     *simRequest // under way
	stored  bool
	touched bool
	heard   bool
	waiting []int // reads
}

type simRequest struct {
	layer  int
	run    run
	class  priority.Class
	begins float64 // first byte; seconds
	got    float64 // bytes
	next   int     // span of the run that has not come
}

// sim is one simulation under way; times are seconds.
type sim struct {
	t        *trace
	link     Link
	policy   policy
	now      float64
	demanded float64 // when a demand was under way for the last time

	spans  [][]simSpan
	casts  []*forecast
	ledger *ledger
	rumour rumours
	queues [3][]*simRequest
	active []*simRequest
	idle   int // connections
	opened int
	result simResult

	waits  []int   // by read: spans that are missing
	after  [][]int // by read: the reads that wait for its answer
	events []simEvent
}

// simEvent: something that happens at a time that does not depend on the link.
type simEvent struct {
	at     float64
	layer  int // of a span that is decoded; -1: a read begins
	number int // span or read
}

func simulate(t *trace, link Link, p policy) simResult {
	s := &sim{t: t, link: link, policy: p, ledger: new(ledger), demanded: math.Inf(-1)}
	for i := range t.Layers {
		l := &t.Layers[i]
		s.spans = append(s.spans, make([]simSpan, len(l.spans)))
		s.casts = append(s.casts, &forecast{
			spans: l.spans, ledger: s.ledger, rumours: &s.rumour, heard: make(map[int]told), places: func() []place { return l.places },
		})
	}
	s.waits, s.after = make([]int, len(t.Reads)), make([][]int, len(t.Reads))
	for k, r := range t.Reads {
		if r.After < 0 {
			s.schedule(simEvent{float64(r.Think) / 1e6, -1, k})
		} else {
			s.after[r.After] = append(s.after[r.After], k)
		}
	}
	if p == policyReplay {
		s.beginReplay()
	}
	s.run()
	s.result.took = time.Duration((s.now + float64(t.Tail)/1e6) * 1e9)
	s.result.limit = s.limit()
	return s.result
}

// limit is 4 round trips, the touched spans' time on the link, and the time of
// the workload where everything is at hand.
func (s *sim) limit() time.Duration {
	done := make([]float64, len(s.t.Reads))
	var local float64
	for k, r := range s.t.Reads {
		if done[k] = float64(r.Think) / 1e6; r.After >= 0 {
			done[k] += done[r.After]
		}
		local = max(local, done[k])
	}
	local += float64(s.t.Tail) / 1e6
	return 4*s.link.RoundTrip + time.Duration((float64(s.result.wanted)/float64(s.link.Bandwidth)+local)*1e9)
}

func (s *sim) schedule(e simEvent) {
	at, _ := slices.BinarySearchFunc(s.events, e, func(a, b simEvent) int {
		return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(b.number, a.number)) // soonest last
	})
	s.events = slices.Insert(s.events, at, e)
}

func (s *sim) run() {
	for {
		s.launch()
		next := math.Inf(1)
		if n := len(s.events); n > 0 {
			next = s.events[n-1].at
		}
		arrival := s.arrival()
		if math.IsInf(min(next, arrival), 1) {
			return
		}
		s.flow(min(next, arrival))
		if next <= arrival {
			e := s.events[len(s.events)-1]
			s.events = s.events[:len(s.events)-1]
			if e.layer < 0 {
				s.read(e.number)
			} else {
				s.decoded(e.layer, e.number)
			}
		}
	}
}

// launch gives connections to requests that wait, the most urgent first.
func (s *sim) launch() {
	for c := range s.queues {
		for len(s.queues[c]) > 0 && len(s.active) < simConnections {
			if priority.Class(c) != priority.Demand && !s.mayPrefetch() {
				break
			}
			r := s.queues[c][0]
			s.queues[c] = s.queues[c][1:]
			r.begins = s.now + s.link.RoundTrip.Seconds()
			if s.idle > 0 {
				s.idle--
			} else {
				s.opened++
				r.begins += s.link.RoundTrip.Seconds()
			}
			s.active = append(s.active, r)
			s.result.requests++
		}
	}
}

// mayPrefetch is what package remote lets begin beside demands, and Prefetch at
// once.
func (s *sim) mayPrefetch() bool {
	n, left := 0, int64(0)
	for _, r := range s.active {
		if r.class == priority.Demand {
			s.demanded = s.now
			continue
		}
		n++
		left += r.run.n - int64(r.got)
	}
	most := simPrefetches
	if s.policy == policyReplay {
		most = prefetchRanges
	}
	crowded := left > 2*s.link.product() && s.now-s.demanded < simLull
	return n < most && len(s.active) < simConnections*3/4 && !crowded
}

// sharing returns how many responses are being received.
func (s *sim) sharing() (n int) {
	for _, r := range s.active {
		if r.begins <= s.now {
			n++
		}
	}
	return n
}

// arrival returns when the next response begins or the next span is there.
func (s *sim) arrival() float64 {
	at := math.Inf(1)
	rate := float64(s.link.Bandwidth) / float64(max(s.sharing(), 1))
	for _, r := range s.active {
		if r.begins > s.now {
			at = min(at, r.begins)
			continue
		}
		at = min(at, s.now+max(r.due(s.t)-r.got, 0)/rate)
	}
	return at
}

// due returns after how many bytes the request's next span is complete.
func (r *simRequest) due(t *trace) float64 {
	sp := &t.Layers[r.layer].spans[r.run.spans[r.next]]
	return float64(sp.Off + sp.CLen - r.run.off)
}

// flow lets time pass until to, and takes what has come.
func (s *sim) flow(to float64) {
	got := (to - s.now) * float64(s.link.Bandwidth) / float64(max(s.sharing(), 1))
	var rest []*simRequest
	for _, r := range s.active {
		if r.begins > s.now {
			rest = append(rest, r)
			continue
		}
		r.got += got
		for r.next < len(r.run.spans) && r.due(s.t) <= r.got+0.5 {
			i := r.run.spans[r.next]
			r.next++
			s.schedule(simEvent{to + float64(s.t.Layers[r.layer].spans[i].Len)/decodeRate, r.layer, i})
		}
		if r.next < len(r.run.spans) {
			rest = append(rest, r)
			continue
		}
		s.idle++
		s.result.bytes += r.run.n
	}
	s.active, s.now = rest, to
}

func (s *sim) decoded(layer, i int) {
	sp := &s.spans[layer][i]
	sp.req, sp.stored = nil, true
	for _, k := range sp.waiting {
		if s.waits[k]--; s.waits[k] == 0 {
			s.answer(k)
		}
	}
	sp.waiting = nil
	s.hear(layer, i)
}

func (s *sim) answer(k int) {
	for _, next := range s.after[k] {
		s.schedule(simEvent{s.now + float64(s.t.Reads[next].Think)/1e6, -1, next})
	}
}
