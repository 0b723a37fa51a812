//go:build linux

package cold

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// form measures the workload over peel mounts of one form: first with nothing
// known, over all lines, and then with the profile of the first run.
func (b *bench) form(t testing.TB, f form) {
	t.Helper()
	b.reg.Push(t, b.layout, string(f.tag), b.repo(f.name))
	if f.indexed {
		p := testkit.NewPeel(t)
		ref := b.reg.Ref(b.repo(f.name), string(f.tag))
		p.Must("index", "create", ref)
		p.Must("index", "push", ref)
	}
	var teacher *testkit.Peel
	var learned string
	for _, l := range b.selectedLines() {
		p := b.lazy(t, l, f, false)
		if teacher == nil {
			teacher, learned = p, b.ref(l, f)
		}
	}
	if f.lazy && teacher.Run("profile", "push", learned).Code == testkit.OK {
		for _, l := range b.selectedLines() {
			b.lazy(t, l, f, true)
		}
	}
	if f == forms()[0] && b.sel.has(whole, ways()) {
		for _, l := range b.selectedLines() {
			b.whole(t, l, f)
		}
	}
}

// lazy measures one run with an empty cache, and returns what is then a full
// one.
func (b *bench) lazy(t testing.TB, l line, f form, profile bool) *testkit.Peel {
	t.Helper()
	p := testkit.NewPeel(t)
	r := result{Workload: b.name, Line: l.name, Way: f.name, Profile: profile}
	dir := p.Dir()
	b.cold(t, p.Bin)
	before := b.count(l.name)
	begin := time.Now()
	p.Must("mount", b.ref(l, f), dir)
	_, r.Tables = b.since(l.name, before)
	b.run(t, &r, begin, dir)
	b.served(t, p, &r, dir, before)
	p.Umount(dir)
	b.done(t, r)
	return p
}

// whole measures a mount with an empty cache of which everything is read.
func (b *bench) whole(t testing.TB, l line, f form) {
	t.Helper()
	p := testkit.NewPeel(t)
	r := result{Workload: b.name, Line: l.name, Way: whole}
	dir := p.Dir()
	b.cold(t, p.Bin)
	before := b.count(l.name)
	begin := time.Now()
	p.Must("mount", b.ref(l, f), dir)
	r.Mounted = time.Since(begin).Seconds()
	testkit.ReadAll(t, dir)
	r.Total = time.Since(begin).Seconds()
	b.served(t, p, &r, dir, before)
	p.Umount(dir)
	b.done(t, r)
	if err := os.RemoveAll(p.Cache); err != nil {
		t.Error(err)
	}
}

// traffic is what has gone over a line.
type traffic struct{ requests, bytes int64 }

func (b *bench) count(line string) (c traffic) {
	c.requests, c.bytes = b.lines[line].Count()
	return c
}

func (b *bench) since(line string, before traffic) (requests, bytes int64) {
	now := b.count(line)
	return now.requests - before.requests, now.bytes - before.bytes
}

// served notes what the server of a mount has fetched, and used.
func (b *bench) served(t testing.TB, p *testkit.Peel, r *result, dir string, before traffic) {
	t.Helper()
	r.Requests, r.Bytes = b.since(r.Line, before)
	memory, err := testkit.PeakMemory(p.ServerPID(dir))
	if err != nil {
		t.Fatal(err)
	}
	r.Memory = memory
	explain(t, p, dir, r)
}

// explain asks the server what has become of the reads.
func explain(t testing.TB, p *testkit.Peel, dir string, r *result) {
	t.Helper()
	var explained struct {
		Touched int64 `json:"touched_compressed"`
		Unused  int64 `json:"unused_compressed"`
	}
	said := p.Run("explain", "--json", dir)
	if said.Code != testkit.OK {
		t.Logf("peel explain %s: %s", dir, said.Stderr)
		return
	}
	if err := json.Unmarshal([]byte(said.Stdout), &explained); err != nil {
		t.Fatalf("peel explain --json: %v\n%s", err, said.Stdout)
	}
	r.Touched, r.Unused = explained.Touched, explained.Unused
}
