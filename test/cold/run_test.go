//go:build linux

package cold

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

const (
	runTime     = 2 * time.Minute // at most, of one container
	localRounds = 3
)

// A bench is one workload before a registry.
type bench struct {
	workload
	sel    selection
	reg    *testkit.Registry
	lines  map[string]*testkit.Line
	layout string
	forget func(t testing.TB) // what the kernel has in memory
	out    *results
}

func newBench(t testing.TB, w workload, sel selection, out *results) *bench {
	t.Helper()
	b := &bench{
		workload: w, sel: sel, out: out, forget: testkit.DropCaches,
		layout: w.layout(t), reg: testkit.NewRegistry(t), lines: map[string]*testkit.Line{},
	}
	for _, l := range b.selectedLines() {
		b.lines[l.name] = b.reg.Behind(t, l.Link)
	}
	for _, l := range testkit.LayersOf(t, b.layout, string(testkit.Gzip)) {
		out.Sizes[w.name] += l.Desc.Size
	}
	return b
}

func (b *bench) selectedLines() (out []line) {
	for _, l := range lines() {
		if b.sel.has(l.name, lineNames()) {
			out = append(out, l)
		}
	}
	return out
}

func (b *bench) repo(way string) string { return "cold/" + b.name + "-" + way }

func (b *bench) ref(l line, f form) string {
	return b.lines[l.name].Host() + "/" + b.repo(f.name) + ":" + string(f.tag)
}

// all measures the workload in every way that is selected.
func (b *bench) all(t testing.TB) {
	t.Helper()
	part(t, local, b.local)
	for _, f := range forms() {
		if b.sel.has(f.name, ways()) {
			part(t, f.name, func(t testing.TB) { b.form(t, f) })
		}
	}
	for _, l := range b.selectedLines() {
		if b.sel.has(ctr, ways()) || b.sel.has(podman, ways()) {
			part(t, l.name, func(t testing.TB) { b.peers(t, l) })
		}
	}
}

// cold makes the kernel forget everything but the programs that are about to
// run: they are this machine's own, not the image's.
func (b *bench) cold(t testing.TB, programs ...string) {
	t.Helper()
	b.forget(t)
	testkit.Warm(t, slices.Concat([]string{"runc", "fusermount3"}, programs)...)
}

// run starts the workload's container over root, which has been ready since
// begin, and checks what it says.
func (b *bench) run(t testing.TB, r *result, begin time.Time, lower ...string) {
	t.Helper()
	ready := time.Since(begin)
	c := b.container
	c.Lower = lower
	ran := c.Run(t, runTime)
	if !strings.Contains(ran.Output, b.want) {
		t.Errorf("%s: no %q in the output:\n%s", b.name, b.want, ran.Output)
	}
	r.Mounted, r.First, r.Total = ready.Seconds(), (ready + ran.First).Seconds(), (ready + ran.Total).Seconds()
}

// local measures the container over the extracted layers: the median, since
// every L has it.
func (b *bench) local(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	var lower []string
	for i, l := range testkit.LayersOf(t, b.layout, string(testkit.Gzip)) {
		at := filepath.Join(dir, string(rune('a'+i)))
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		testkit.Extract(t, l, at)
		lower = append([]string{at}, lower...)
	}
	var runs []result
	for range localRounds {
		r := result{Workload: b.name, Way: local}
		b.cold(t)
		b.run(t, &r, time.Now(), lower...)
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b result) int { return cmp.Compare(a.Total, b.Total) })
	b.done(t, runs[len(runs)/2])
}

func (b *bench) done(t testing.TB, r result) {
	t.Helper()
	b.out.add(r)
	with := ""
	if r.Profile {
		with = " with a profile"
	}
	t.Logf("%s %s %s%s: mounted %.2f s, first output %.2f s, total %.2f s, %.1f MB, %d requests, memory %.0f MB, touched %.1f MB, unused %.1f MB",
		r.Workload, r.Line, r.Way, with, r.Mounted, r.First, r.Total, float64(r.Bytes)/1e6, r.Requests, float64(r.Memory)/1e6, float64(r.Touched)/1e6, float64(r.Unused)/1e6)
}
