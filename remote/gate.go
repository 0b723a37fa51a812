package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/peelfs/peel/internal/priority"
)

const (
	maxRest      = time.Hour // a host that asks for more is asked again after this
	maxResting   = 256       // hosts whose wish to rest is remembered
	maxGateFiles = 64        // open at once; further hosts are not shared
	maxRecord    = 512       // bytes of a file's content
	// All processes together have so many times the slots of one, of which others
	// than demands may take what is one's: they hold them for long ranges.
	machineShare = 2
	// What waits for a slot looks again after these, with jitter.
	firstPoll, lastPoll = 2 * time.Millisecond, 15 * time.Millisecond
	// A process that has slots already lets those who wait look twice first.
	courtesy = 30 * time.Millisecond
	// Nobody waits longer for other processes: they may have been stopped.
	longestQueue = 3 * time.Second
	// Nor at all for this long after somebody has waited in vain.
	vain = 30 * time.Second
)

// gate is what all clients of this machine share of each host: until when it
// wants to be left alone, and the slots for requests under way. It lies in one
// small file per host, whose name is a part of the host's hash. Hosts that
// happen to share a file share its slots, nothing else. Without a folder, or
// where the file cannot be used, the client keeps to itself.
type gate struct {
	dir   string // "": nothing is shared
	slots int
	log   *logrus.Entry

	mu      sync.Mutex // guards what follows
	files   map[string]*gateFile
	resting map[string]time.Time
	told    bool // that files cannot be used
}

func newGate(o Options) *gate {
	return &gate{dir: o.StateDir, slots: machineShare * o.MaxPerHost, log: o.Log, files: map[string]*gateFile{}, resting: map[string]time.Time{}}
}

// close must not be called while slots are held.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.files {
		if f != nil {
			f.f.Close() //nolint:errcheck // nothing of it is kept
		}
	}
	g.files = map[string]*gateFile{}
}

// heed notes what an answer of host asks for.
func (g *gate) heed(host string, resp *http.Response) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return
	}
	if wait := retryAfter(resp.Header.Get("Retry-After"), time.Now()); wait > 0 {
		g.rest(host, wait)
	}
}

// rest notes that host asked not to be asked for d.
func (g *gate) rest(host string, d time.Duration) {
	until := time.Now().Add(min(d, maxRest))
	g.mu.Lock()
	for h, t := range g.resting {
		if time.Now().After(t) {
			delete(g.resting, h)
		}
	}
	if len(g.resting) < maxResting {
		g.resting[host] = until
	}
	g.mu.Unlock()
	if f := g.file(host); f != nil {
		g.sick(f.rest(host, until))
	}
}

// rests returns a fault that tells how long host still wants to be left alone,
// nil if it does not.
func (g *gate) rests(host string) error {
	g.mu.Lock()
	until := g.resting[host]
	g.mu.Unlock()
	if f := g.file(host); f != nil {
		if told := f.until(host); told.After(until) {
			until = told
		}
	}
	left := time.Until(until)
	if left <= 0 {
		return nil
	}
	return &fault{
		class: ErrUnreachable, text: host + " limits how often it is asked, and was not asked again", remedy: "try again later",
		again: true, after: min(left, maxRest),
	}
}

// enter waits for one of the slots of host that all processes share; class may
// become more urgent meanwhile. The caller calls leave once.
func (g *gate) enter(ctx context.Context, host string, class func() priority.Class) (leave func(), err error) {
	f := g.file(host)
	if f == nil {
		return func() {}, nil
	}
	slot, err := f.enter(ctx, class)
	switch {
	case ctx.Err() != nil:
		return nil, ended(ctx, nil)
	case err != nil:
		g.sick(err)
		g.mu.Lock()
		g.files[host] = nil // not closed: others may hold slots of it
		g.mu.Unlock()
		return func() {}, nil
	}
	return func() { f.leave(slot) }, nil
}

// file is the file of host, nil if there is none to use.
func (g *gate) file(host string) *gateFile {
	if g.dir == "" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	f, known := g.files[host]
	if known || len(g.files) >= maxGateFiles {
		return f
	}
	file, err := openGateFile(g.dir, host)
	if err == nil {
		f = &gateFile{f: file, held: make([]bool, g.slots), next: os.Getpid()}
	}
	g.files[host] = f
	if err != nil {
		g.sickLocked(err)
	}
	return f
}

func openGateFile(dir, host string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(host))
	return os.OpenFile(filepath.Join(dir, hex.EncodeToString(sum[:])[:3]), os.O_RDWR|os.O_CREATE, 0o600)
}

func (g *gate) sick(err error) {
	if err == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sickLocked(err)
}

func (g *gate) sickLocked(err error) {
	if !g.told {
		g.told = true
		g.log.WithError(err).Warn("limits per host are not shared with other processes")
	}
}

// gateFile is the file of one host, open as long as its client.
type gateFile struct {
	f *os.File

	mu      sync.Mutex       // guards what follows
	held    []bool           // slots that this process has
	count   int              // of them
	next    int              // where to look for a slot first
	waiting [ranks]int       // how many here wait for others
	vain    [ranks]time.Time // until when nobody does, see there
}

// Bytes of the file that locks are on, far behind its content: one per slot,
// and one per rank that everybody who waits has a shared lock on.
const (
	slotBytes    = 1 << 20
	waitingBytes = 1 << 21
)

// rank is what counts of a class among processes: whether a reader waits.
type rank int64

const (
	first rank = iota // Demand: may have any slot
	later             // has those of the first half
	ranks
)

func rankOf(c priority.Class) rank {
	if c == priority.Demand {
		return first
	}
	return later
}

// enter returns the slot, or -1 if it waited too long for one.
func (f *gateFile) enter(ctx context.Context, class func() priority.Class) (slot int, err error) {
	r := rankOf(class())
	if f.crowded(r) {
		if err := sleep(ctx, courtesy); err != nil {
			return -1, err
		}
	}
	if slot, err = f.try(rankOf(class())); err != nil || slot >= 0 || f.hopeless(r) {
		return slot, err
	}
	if err := f.wait(r, 1); err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, f.wait(r, -1)) }()
	start := time.Now()
	for d := firstPoll; time.Since(start) < longestQueue; d = min(2*d, lastPoll) {
		if err := sleep(ctx, jitter(d)); err != nil {
			return -1, err
		}
		if slot, err = f.try(rankOf(class())); err != nil || slot >= 0 {
			return slot, err
		}
	}
	f.mu.Lock()
	f.vain[r] = time.Now().Add(vain)
	f.mu.Unlock()
	return -1, nil
}

// hopeless reports whether others have lately not given a slot back for as long
// as anybody waits.
func (f *gateFile) hopeless(r rank) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.vain[r])
}

// crowded reports whether this process has slots while others of the rank wait
// for one.
func (f *gateFile) crowded(r rank) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == 0 {
		return false
	}
	others, err := lockedElsewhere(f.f, waitingBytes+int64(r))
	return err == nil && others
}

// try takes a free slot if there is one for the rank, else it returns -1. All
// look in the first half first: the more demands, the fewer others. None of
// those goes before a demand that waits.
func (f *gateFile) try(r rank) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r == later {
		if f.waiting[first] > 0 {
			return -1, nil
		}
		if others, err := lockedElsewhere(f.f, waitingBytes+int64(first)); others || err != nil {
			return -1, err
		}
	}
	half := len(f.held) / machineShare
	reach := half
	if r == first {
		reach = len(f.held)
	}
	for i := range reach {
		slot := i
		if i < half {
			slot = (f.next + i) % half
		}
		if f.held[slot] {
			continue
		}
		ok, err := lockByte(f.f, slotBytes+int64(slot), exclusive)
		if err != nil {
			return -1, err
		}
		if ok {
			f.held[slot], f.next = true, slot
			f.count++
			return slot, nil
		}
	}
	return -1, nil
}

// leave gives a slot back. An error would mean that the file is closed, which
// frees all of them.
func (f *gateFile) leave(slot int) {
	if slot < 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[slot] = false
	f.count--
	unlockByte(f.f, slotBytes+int64(slot)) //nolint:errcheck // see above
}

// wait counts those who wait here; the first and the last tell others.
func (f *gateFile) wait(r rank, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[r] += n
	switch f.waiting[r] {
	case 0:
		return unlockByte(f.f, waitingBytes+int64(r))
	case n:
		_, err := lockByte(f.f, waitingBytes+int64(r), shared)
		return err
	}
	return nil
}

// until reads until when host wants to be left alone, zero if nothing is known.
func (f *gateFile) until(host string) time.Time {
	p := make([]byte, maxRecord)
	n, _ := f.f.ReadAt(p, 0) // an empty file, mostly
	t, of := parseRecord(string(p[:n]))
	if of != host || time.Until(t) > maxRest {
		return time.Time{}
	}
	return t
}

// rest writes until when host wants to be left alone, unless a later time is
// known.
func (f *gateFile) rest(host string, until time.Time) error {
	if f.until(host).After(until) {
		return nil
	}
	r := record(host, until)
	if len(r) > maxRecord {
		return nil
	}
	_, err := f.f.WriteAt([]byte(r+strings.Repeat("\x00", maxRecord-len(r))), 0)
	return err
}

// record is the content of a file: "peel 1", Unix milliseconds, the host.
func record(host string, until time.Time) string {
	return fmt.Sprintf("peel 1 %d %s\n", until.UnixMilli(), host)
}

// parseRecord is the reverse of record; what is not one has no host.
func parseRecord(s string) (until time.Time, host string) {
	line, _, whole := strings.Cut(s, "\n")
	words := strings.Split(line, " ")
	if !whole || len(words) != 4 || words[0] != "peel" || words[1] != "1" {
		return time.Time{}, ""
	}
	ms, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}, ""
	}
	return time.UnixMilli(ms), words[3]
}

// jitter is between half of d and d, so that who waits does not wake in step.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // nobody gains by guessing it
}

// sleep waits for d.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
