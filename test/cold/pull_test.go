//go:build linux

package cold

import (
	"testing"
	"time"

	"github.com/peelfs/peel/internal/testkit"
)

// peers measures the workload after full pulls of the gzip form.
func (b *bench) peers(t testing.TB, l line) {
	t.Helper()
	gzip := forms()[len(forms())-1]
	b.reg.Push(t, b.layout, string(gzip.tag), b.repo(gzip.name))
	ref := b.ref(l, gzip)
	if b.sel.has(ctr, ways()) {
		part(t, ctr, func(t testing.TB) {
			b.pull(t, result{Workload: b.name, Line: l.name, Way: ctr}, testkit.NewContainerd(t), ref)
		})
	}
	if b.sel.has(podman, ways()) {
		part(t, podman, func(t testing.TB) {
			b.pull(t, result{Workload: b.name, Line: l.name, Way: podman}, testkit.NewPodman(t), ref)
		})
	}
}

// pull measures one run after a pull. What the pull leaves in the page cache
// stays there, as it would.
func (b *bench) pull(t testing.TB, r result, p testkit.Puller, ref string) {
	t.Helper()
	b.cold(t, "containerd", "ctr", "podman", "tar")
	before := b.count(r.Line)
	begin := time.Now()
	p.Pull(ref)
	dir := p.Mount(ref)
	b.run(t, &r, begin, dir)
	r.Requests, r.Bytes = b.since(r.Line, before)
	b.done(t, r)
	if r.Way == ctr && b.sel.has(whole, ways()) {
		read := time.Now()
		testkit.ReadAll(t, dir)
		r.Way, r.Total, r.First = ctrWhole, r.Mounted+time.Since(read).Seconds(), 0
		b.done(t, r)
	}
}
